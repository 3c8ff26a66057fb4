package cli

import (
	"fmt"
	"io"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// quoting writes what commands print with everything escaped that a terminal may
// take for a command, or hide: ids, tags and messages of servers are what others
// sent. In JSON the escapes are JSON's own. Only line ends and tabs pass.
type quoting struct {
	to   io.Writer
	rest []byte // the beginning of a character whose end has not been written yet
}

// Write implements io.Writer.
func (q *quoting) Write(p []byte) (int, error) {
	text := p
	if len(q.rest) > 0 {
		text = append(q.rest, p...)
		q.rest = nil
	}
	plain := 0
	for plain < len(text) && isPlain(text[plain]) {
		plain++
	}
	out := text[:plain:plain]
	for rest := text[plain:]; len(rest) > 0; {
		if !utf8.FullRune(rest) {
			q.rest = append([]byte{}, rest...)
			break
		}
		r, size := utf8.DecodeRune(rest)
		out = appendQuoted(out, r, rest[:size])
		rest = rest[size:]
	}
	if _, err := q.to.Write(out); err != nil {
		return 0, err
	}
	return len(p), nil
}

// flush writes what is no whole character.
func (q *quoting) flush() {
	for _, b := range q.rest {
		_, _ = fmt.Fprintf(q.to, `\x%02x`, b)
	}
	q.rest = nil
}

func isPlain(b byte) bool { return b >= ' ' && b < 0x7f || b == '\n' || b == '\t' }

// appendQuoted appends a character, which has been read from some bytes.
func appendQuoted(out []byte, r rune, from []byte) []byte {
	switch {
	case r < utf8.RuneSelf && isPlain(byte(r)), r >= utf8.RuneSelf && unicode.IsGraphic(r) && (r != utf8.RuneError || len(from) > 1):
		return append(out, from...)
	case r == utf8.RuneError:
		return fmt.Appendf(out, `\x%02x`, from[0])
	case r > 0xffff:
		high, low := utf16.EncodeRune(r)
		return fmt.Appendf(out, `\u%04x\u%04x`, high, low)
	}
	return fmt.Appendf(out, `\u%04x`, r)
}
