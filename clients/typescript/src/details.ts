// Typed details of gRPC statuses. grpc-js hands them over as bytes.

import { Metadata } from '@grpc/grpc-js';
import protobuf from 'protobufjs';

import type { Status } from './waits.js';

// The parts of google/rpc/status.proto and error_details.proto that clients read.
const root = protobuf.parse(`
  syntax = "proto3";
  package google.rpc;
  message Any { string type_url = 1; bytes value = 2; }
  message Status { int32 code = 1; string message = 2; repeated Any details = 3; }
  message ErrorInfo { string reason = 1; string domain = 2; map<string, string> metadata = 3; }
  message Duration { int64 seconds = 1; int32 nanos = 2; }
  message RetryInfo { Duration retry_delay = 1; }
`).root;
const StatusMessage = root.lookupType('google.rpc.Status');
const ErrorInfo = root.lookupType('google.rpc.ErrorInfo');
const RetryInfo = root.lookupType('google.rpc.RetryInfo');

interface Any { typeUrl: string; value: Uint8Array }

/** Reads the status of a failed call. */
export function statusOf(error: Error & { code?: number; metadata?: Metadata }): Status {
  const status: Status = { code: error.code ?? 2, reason: '', reportNumber: 0, retryDelayMs: 0 };
  const [bytes] = error.metadata?.get('grpc-status-details-bin') ?? [];
  if (!(bytes instanceof Uint8Array)) return status;
  try {
    for (const detail of StatusMessage.toObject(StatusMessage.decode(bytes), { arrays: true }).details as Any[]) {
      if (detail.typeUrl.endsWith('/google.rpc.ErrorInfo')) {
        const info = ErrorInfo.toObject(ErrorInfo.decode(detail.value), { defaults: true });
        status.reason = info.reason;
        status.reportNumber = Number(info.metadata?.report_number ?? 0);
      } else if (detail.typeUrl.endsWith('/google.rpc.RetryInfo')) {
        const delay = RetryInfo.toObject(RetryInfo.decode(detail.value), { longs: Number, defaults: true }).retryDelay;
        status.retryDelayMs = Number(delay?.seconds ?? 0) * 1000 + (delay?.nanos ?? 0) / 1e6;
      }
    }
  } catch {
    // Details that can't be read say nothing.
  }
  return status;
}
