package output

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"strings"
	"time"
	"unicode/utf8"
)

// formatted reports whether lines are changed on their way.
func (o *FileOptions) formatted() bool { return o.JSON || o.Prefix != "" || o.Timestamps != nil }

// stampLayout is RFC 3339 with milliseconds.
const stampLayout = "2006-01-02T15:04:05.000Z07:00"

// parcel is some of what one program has printed, on its way into a file.
type parcel struct {
	data     []byte
	at       time.Time // when it was read
	instance string
	stream   Stream
}

// format returns how lines of the parcel stand in the file, and how many of its
// bytes they are: as many as make room bytes, but at least one. midLine says that
// the file ends in the middle of a line, which goes on.
func (o *FileOptions) format(b parcel, room int64, midLine bool) (text []byte, used int) {
	head := o.head(b)
	for line := range bytes.Lines(b.data) {
		size := len(text)
		switch {
		case o.JSON:
			text = appendJSON(text, b, line, o.zone())
		case midLine:
			text = append(text, line...)
		default:
			text = append(append(text, head...), line...)
		}
		if used > 0 && int64(len(text)) > room {
			return text[:size], used
		}
		used, midLine = used+len(line), false
	}
	return text, used
}

// head is what stands before each line of a parcel.
func (o *FileOptions) head(b parcel) string {
	head := strings.NewReplacer("{instance}", b.instance, "{stream}", b.stream.String()).Replace(o.Prefix)
	if o.Timestamps != nil {
		head = b.at.In(o.Timestamps).Format(stampLayout) + " " + head
	}
	return head
}

func (o *FileOptions) zone() *time.Location {
	if o.Timestamps == nil {
		return time.UTC
	}
	return o.Timestamps
}

// jsonLine is a line in a file of JSON lines. The fields are those of a line of
// the control socket.
type jsonLine struct {
	Time     string `json:"time"`
	Instance string `json:"instance"`
	Stream   string `json:"stream"`
	Line     string `json:"line"`
	Base64   string `json:"base64,omitempty"`
	Partial  bool   `json:"partial,omitempty"`
}

// appendJSON appends a line as a JSON object on a line.
func appendJSON(text []byte, b parcel, line []byte, zone *time.Location) []byte {
	content, whole := bytes.CutSuffix(line, []byte("\n"))
	j := jsonLine{Time: b.at.In(zone).Format(stampLayout), Instance: b.instance, Stream: b.stream.String(), Line: string(content), Partial: !whole}
	if !utf8.Valid(content) {
		j.Line, j.Base64 = strings.ToValidUTF8(j.Line, "\uFFFD"), base64.StdEncoding.EncodeToString(content)
	}
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	_ = e.Encode(j) // strings can always be encoded
	return append(text, out.Bytes()...)
}
