package lake

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

const (
	s3Scheme = "s3://"
	// s3Tries are those of one request, before the role or the reader hears of it.
	s3Tries = 3
	// s3Timeout bounds one request, its tries included.
	s3Timeout = time.Minute
	// blockBytes is how much of an object is asked for at once, and heldBlocks how
	// many are held of an open one.
	blockBytes, heldBlocks = 4 << 20, 2
)

// Environment that the AWS tools share. Access keys are found as they do it: in
// AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, in the file of AWS_SHARED_CREDENTIALS_FILE
// (~/.aws/credentials) under AWS_PROFILE, or by the role of the machine.
const (
	endpointVariable   = "AWS_ENDPOINT_URL"
	s3EndpointVariable = "AWS_ENDPOINT_URL_S3"
	regionVariable     = "AWS_REGION"
	defaultEndpoint    = "https://s3.amazonaws.com"
)

// bucket keeps files as objects of S3. A PUT replaces an object as a whole or not at
// all, and S3 shows it from then on to everybody.
type bucket struct {
	client       *minio.Client
	name, prefix string // prefix is empty or ends in a slash
}

var bucketPattern = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`)

// newBucket parses s3://bucket/prefix. It asks nobody.
func newBucket(where string) (*bucket, error) {
	name, prefix, _ := strings.Cut(strings.TrimPrefix(where, s3Scheme), "/")
	if !bucketPattern.MatchString(name) {
		return nil, fmt.Errorf("%s has no name of a bucket: must be s3://bucket/prefix", where)
	}
	if prefix = strings.Trim(prefix, "/"); strings.ContainsAny(prefix, "?#\\") || strings.Contains(prefix, "//") {
		return nil, fmt.Errorf("%s: the prefix must have neither ?, # nor a backslash, and no empty part", where)
	}
	if prefix != "" {
		prefix += "/"
	}
	variable, at := s3EndpointVariable, os.Getenv(s3EndpointVariable)
	if at == "" {
		variable, at = endpointVariable, os.Getenv(endpointVariable)
	}
	if at == "" {
		at = defaultEndpoint
	}
	endpoint, err := url.Parse(at)
	if err != nil || endpoint.Host == "" || endpoint.Scheme != "https" && endpoint.Scheme != "http" || strings.Trim(endpoint.Path, "/") != "" {
		return nil, fmt.Errorf("%s is %q: must be https://host or http://host, with a port where it needs one", variable, at)
	}
	client, err := minio.New(endpoint.Host, &minio.Options{
		Creds: credentials.NewChainCredentials([]credentials.Provider{
			&credentials.EnvAWS{}, &credentials.FileAWSCredentials{}, &credentials.IAM{Client: &http.Client{Timeout: 5 * time.Second}},
		}),
		Secure: endpoint.Scheme == "https", Region: os.Getenv(regionVariable), MaxRetries: s3Tries,
	})
	if err != nil {
		return nil, fmt.Errorf("S3 at %s: %w", at, err)
	}
	return &bucket{client, name, prefix}, nil
}

func (b *bucket) String() string { return s3Scheme + b.name + "/" + strings.TrimSuffix(b.prefix, "/") }

// put sends the whole object; the answer commits it.
func (b *bucket) put(ctx context.Context, path string, write func(io.Writer) error) (int64, error) {
	var content bytes.Buffer
	if err := write(&content); err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, s3Timeout)
	defer cancel()
	size := int64(content.Len())
	_, err := b.client.PutObject(ctx, b.name, b.prefix+path, &content, size, minio.PutObjectOptions{
		ContentType: "application/octet-stream", DisableMultipart: size < 1<<30,
	})
	return size, fault(err)
}

func (b *bucket) list(ctx context.Context, dir string) ([]entry, error) {
	ctx, cancel := context.WithTimeout(ctx, s3Timeout)
	defer cancel()
	prefix := b.prefix
	if dir != "" {
		prefix += dir + "/"
	}
	var out []entry
	for o := range b.client.ListObjectsIter(ctx, b.name, minio.ListObjectsOptions{Prefix: prefix}) {
		if o.Err != nil {
			return nil, fault(o.Err)
		}
		name, isDir := strings.CutSuffix(strings.TrimPrefix(o.Key, prefix), "/")
		if name != "" {
			out = append(out, entry{name, isDir, o.Size, o.LastModified})
		}
	}
	return out, fault(ctx.Err())
}

func (b *bucket) has(ctx context.Context, path string) (bool, error) {
	_, err := b.stat(ctx, path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

func (b *bucket) stat(ctx context.Context, path string) (minio.ObjectInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, s3Timeout)
	defer cancel()
	info, err := b.client.StatObject(ctx, b.name, b.prefix+path, minio.StatObjectOptions{})
	return info, fault(err)
}

func (b *bucket) remove(ctx context.Context, path string) error {
	ctx, cancel := context.WithTimeout(ctx, s3Timeout)
	defer cancel()
	err := fault(b.client.RemoveObject(ctx, b.name, b.prefix+path, minio.RemoveObjectOptions{}))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// fault says of an object that is not there what the file system says of a file.
func fault(err error) error {
	if err == nil {
		return nil
	}
	if code := minio.ToErrorResponse(err).Code; code == minio.NoSuchKey {
		return fmt.Errorf("%w: %w", fs.ErrNotExist, err)
	}
	return fmt.Errorf("S3: %w", err)
}

func (b *bucket) open(ctx context.Context, path string) (file, error) {
	info, err := b.stat(ctx, path)
	if err != nil {
		return nil, err
	}
	return &object{ctx: ctx, bucket: b, key: b.prefix + path, etag: info.ETag, size: info.Size}, nil
}

// object reads an object by blocks. It is bound to the content that it was opened
// with: one that is replaced meanwhile fails to be read.
type object struct {
	ctx    context.Context //nolint:containedctx // io.ReaderAt takes none; an object lives within one call
	bucket *bucket
	key    string
	etag   string
	size   int64

	mu     sync.Mutex
	blocks []block // the newest last
}

type block struct {
	at      int64
	content []byte
}

// Size implements file.
func (o *object) Size() int64 { return o.size }

// Close implements file.
func (o *object) Close() error { return nil }

// ReadAt implements io.ReaderAt.
func (o *object) ReadAt(p []byte, at int64) (n int, err error) {
	if at < 0 {
		return 0, fs.ErrInvalid
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for n < len(p) && at < o.size {
		content, err := o.block(at / blockBytes)
		if err != nil {
			return n, err
		}
		read := copy(p[n:], content[at%blockBytes:])
		n += read
		at += int64(read)
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// block returns a block, from those that are held or from S3.
func (o *object) block(at int64) ([]byte, error) {
	for _, b := range o.blocks {
		if b.at == at {
			return b.content, nil
		}
	}
	ctx, cancel := context.WithTimeout(o.ctx, s3Timeout)
	defer cancel()
	from := at * blockBytes
	content := make([]byte, min(blockBytes, o.size-from))
	var opts minio.GetObjectOptions
	if err := errors.Join(opts.SetRange(from, from+int64(len(content))-1), opts.SetMatchETag(o.etag)); err != nil {
		return nil, err
	}
	found, _, _, err := minio.Core{Client: o.bucket.client}.GetObject(ctx, o.bucket.name, o.key, opts)
	if err != nil {
		return nil, fault(err)
	}
	_, err = io.ReadFull(found, content)
	if err = errors.Join(err, found.Close()); err != nil {
		return nil, err
	}
	if len(o.blocks) == heldBlocks {
		o.blocks = append(o.blocks[:0], o.blocks[1:]...)
	}
	o.blocks = append(o.blocks, block{at, content})
	return content, nil
}
