package gateway

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
)

const (
	typeJSON   = "application/json"
	typeNDJSON = "application/x-ndjson"
	typeSSE    = "text/event-stream"
)

// strictJSON is protobuf's JSON mapping, which refuses what it does not know. It
// leaves out fields that can be absent and are, and writes all others: a zero is
// a value like any other. The messages of a stream are lines.
type strictJSON struct{ runtime.JSONPb }

func newJSON() strictJSON {
	return strictJSON{runtime.JSONPb{MarshalOptions: protojson.MarshalOptions{EmitDefaultValues: true}}}
}

// Marshal implements runtime.Marshaler. A message of a stream comes in a map: what
// the library makes of that is copied and read through again and again.
func (j *strictJSON) Marshal(v any) ([]byte, error) {
	chunk, _ := v.(map[string]any)
	m, ok := chunk[resultKey].(proto.Message)
	if !ok || len(chunk) != 1 {
		return j.JSONPb.Marshal(v)
	}
	const perByte = 4 // of JSON for one of protobuf
	text := append(make([]byte, 0, 64+perByte*proto.Size(m)), `{"`+resultKey+`":`...)
	text, err := j.MarshalAppend(text, m)
	if err != nil {
		return nil, fmt.Errorf("encode a message as JSON: %w", err)
	}
	return append(text, '}'), nil
}

// resultKey is under which a stream's messages stand.
const resultKey = "result"

// StreamContentType implements runtime.StreamContentType.
func (*strictJSON) StreamContentType(any) string { return typeNDJSON }

// NewDecoder implements runtime.Marshaler.
func (*strictJSON) NewDecoder(r io.Reader) runtime.Decoder {
	return runtime.DecoderFunc(func(v any) error {
		text, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		if len(bytes.TrimSpace(text)) == 0 {
			return io.EOF // nothing is set, which the rules then refuse
		}
		m, ok := v.(proto.Message)
		if !ok {
			return fmt.Errorf("decode JSON into a %T: not a message", v)
		}
		if err := protojson.Unmarshal(text, m); err != nil {
			f := locate(text, err)
			if b, ok := r.(*body); ok {
				b.fault = f
			}
			return f
		}
		narrowHeadings(text, m)
		return nil
	})
}

// narrowHeadings narrows headings that a 32-bit float rounds to 360 by
// wire.NarrowHeading. Only the JSON text still distinguishes 359.99999 from 360.
func narrowHeadings(text []byte, m proto.Message) {
	with, ok := m.(interface{ GetReport() *starlingv1.Report })
	if !ok {
		return
	}
	var exact struct {
		Report struct {
			Fixes []struct{ HeadingDeg, Heading_deg json.RawMessage } //nolint:revive // both names of the field
		}
	}
	fixes := with.GetReport().GetFixes()
	rounded := func(f *starlingv1.Fix) bool { return f.GetHeadingDeg() == 360 }
	if !slices.ContainsFunc(fixes, rounded) {
		return
	}
	if json.Unmarshal(text, &exact) != nil {
		return // then they stay 360, which is refused
	}
	for i, f := range fixes {
		if !rounded(f) || i >= len(exact.Report.Fixes) {
			continue
		}
		number := exact.Report.Fixes[i].HeadingDeg
		if number == nil {
			number = exact.Report.Fixes[i].Heading_deg
		}
		if deg, err := strconv.ParseFloat(strings.Trim(string(number), `"`), 64); err == nil {
			*f.HeadingDeg = wire.NarrowHeading(deg)
		}
	}
}

// events sends the messages of a stream as server-sent events.
type events struct{ strictJSON }

// Marshal implements runtime.Marshaler. Messages of a stream come in a map.
func (e *events) Marshal(v any) ([]byte, error) {
	b, err := e.strictJSON.Marshal(v)
	if _, unary := v.(proto.Message); unary || err != nil {
		return b, err
	}
	return append([]byte("data: "), b...), nil
}

// StreamContentType implements runtime.StreamContentType.
func (*events) StreamContentType(any) string { return typeSSE }

// Delimiter implements runtime.Delimited.
func (*events) Delimiter() []byte { return []byte("\n\n") }

// position is how protojson writes where an error is.
var position = regexp.MustCompile(`\(line (\d+):(\d+)\): (.*)`)

// locate turns an error of protojson into a fault that names the field.
func locate(body []byte, err error) *fault {
	found := position.FindStringSubmatch(err.Error())
	if found == nil { // the text ends too early
		return &fault{field: fieldAt(body, len(body)), rule: strings.TrimSpace(strings.TrimPrefix(err.Error(), "proto:"))}
	}
	line, _ := strconv.Atoi(found[1])
	column, _ := strconv.Atoi(found[2])
	return &fault{
		field: fieldAt(body, offsetOf(body, line, column)),
		rule:  fmt.Sprintf("%s (line %d, column %d)", found[3], line, column),
	}
}

func fieldAt(body []byte, offset int) string {
	if path := pathAt(body, offset); path != "" {
		return path
	}
	return "body"
}

// offsetOf finds a line and a column, both counted from 1, the column in
// characters.
func offsetOf(body []byte, line, column int) int {
	at := 0
	for ; line > 1; line-- {
		next := bytes.IndexByte(body[at:], '\n')
		if next < 0 {
			return len(body)
		}
		at += next + 1
	}
	for ; column > 1 && at < len(body); column-- {
		_, size := utf8.DecodeRune(body[at:])
		at += size
	}
	return at
}

// level is an object or array that is open at a place in JSON.
type level struct {
	array bool
	// key or index of the value that the place is in.
	key   string
	index int
	// inKey is true if the next token of an object is a key or its end.
	inKey bool
}

// pathAt names the field at an offset of a JSON text, such as
// report.fixes[2].latitude; empty for the text as a whole. Where the text is not
// JSON any more, it is the field that was being read.
func pathAt(body []byte, offset int) string {
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	var open []level
	for {
		token, err := d.Token()
		if err != nil {
			return render(open)
		}
		delim, isDelim := token.(json.Delim)
		ends := isDelim && (delim == '}' || delim == ']')
		if n := len(open); n > 0 && !ends {
			advance(&open[n-1], token)
		}
		if int(d.InputOffset()) > offset {
			return render(open)
		}
		switch {
		case ends:
			open = open[:len(open)-1]
		case isDelim:
			open = append(open, level{array: delim == '[', index: -1, inKey: true})
		}
	}
}

// advance moves l to the value that token begins, or that it is the key of.
func advance(l *level, token json.Token) {
	switch {
	case l.array:
		l.index++
	case l.inKey:
		l.key, _ = token.(string)
		l.inKey = false
	default:
		l.inKey = true
	}
}

func render(open []level) string {
	var b strings.Builder
	for _, l := range open {
		switch {
		case l.array && l.index >= 0:
			fmt.Fprintf(&b, "[%d]", l.index)
		case !l.array && l.key != "":
			if b.Len() > 0 {
				b.WriteByte('.')
			}
			b.WriteString(l.key)
		}
	}
	return b.String()
}
