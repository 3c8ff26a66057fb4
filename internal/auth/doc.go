// Package auth decides who may do what: it verifies tokens (JWT), keeps the keys
// that they are signed with, and holds every call of every server to one table,
// which denies what it does not list.
//
// A Guard stands before every server of a process. It makes a Caller of a token
// and puts it into the call's context, where a service that has a rule about the
// content of a stream (ingest: whose reports these are) finds it.
//
// One deployment is one tenant: whoever may list vehicles may list all of them.
package auth
