# The image of every role: one static binary and nothing else, not run by root.
#
#   docker build -t starling .
#   docker run --rm starling version
FROM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG REVISION=image
# h3-go is C: linked statically, so that the image needs no libraries.
RUN CGO_ENABLED=1 go build -trimpath -tags netgo,osusergo \
      -ldflags "-s -w -extldflags -static -X github.com/starling-fleet/starling/internal/version.revision=$REVISION" \
      -o /out/starling ./cmd/starling
# Volumes that are mounted here begin with these folders' owner. /tmp is for backups.
RUN mkdir -p /out/data /out/secrets /out/tmp

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build --chown=65532:65532 /out/data /data
COPY --from=build --chown=65532:65532 /out/secrets /secrets
COPY --from=build --chown=65532:65532 /out/tmp /tmp
COPY --from=build /out/starling /starling
USER 65532:65532
ENV STARLING_LOCAL_DIRECTORY=/data/log
VOLUME /data
ENTRYPOINT ["/starling"]
