package scrape

import (
	"fmt"
	"maps"
	"slices"
)

// A Field is a key with its value, which is a string or else JSON.
type Field struct {
	Key, Value string
	JSON       bool // Value is encoded already
}

// System is what the environment of a program tells of it, under the names that
// allegro's Mesos executor uses. What is not known is empty.
type System struct {
	Host       string // srchost: the machine's name
	Region     string // region
	Zone       string // zone: the availability zone
	InstanceID string // instance-id: of the task
	ServiceID  string // scid: a number, as a string if it is none
}

// Fields returns the fields of what is known.
func (s System) Fields() (fields []Field) {
	for _, f := range []Field{
		{Key: "srchost", Value: s.Host},
		{Key: "region", Value: s.Region},
		{Key: "zone", Value: s.Zone},
		{Key: "instance-id", Value: s.InstanceID},
		{Key: "scid", Value: s.ServiceID, JSON: isNumber(s.ServiceID)},
	} {
		if f.Value != "" {
			fields = append(fields, f)
		}
	}
	return fields
}

// The keys of the frame that Logstash knows.
const (
	timestampKey = "@timestamp"
	versionKey   = "@version"
	messageKey   = "message"
)

// makeFrame encodes what every document begins with.
func makeFrame(fields []Field) ([]byte, error) {
	frame := []byte(`{"` + versionKey + `":"1"`)
	for i, f := range fields {
		if slices.ContainsFunc(fields[i+1:], func(later Field) bool { return encode(later.Key) == encode(f.Key) }) {
			continue
		}
		value, ok := `"`+encode(f.Value)+`"`, true
		if f.JSON {
			value, ok = compact(f.Value)
		}
		if !ok {
			return nil, fmt.Errorf("field %s: %q is not JSON", f.Key, f.Value)
		}
		frame = append(frame, `,"`+encode(f.Key)+`":`+value...)
	}
	return frame, nil
}

// rule says what becomes of a key. Keys and names are as they stand in JSON.
type rule struct {
	key       string
	drop      bool
	name      string // the new one
	time      bool   // only a time can have it
	otherwise string // the name for what is no time

	hash, otherwiseHash uint32 // of the names
}

// rules are those of all keys that have one. Most keys have none, which their
// first bytes tell.
type rules struct {
	first  [256]uint8 // by the first byte of a key, or a quote for the empty one: the index of its list
	lists  [][]rule   // the first is empty
	growth int        // how much longer a name can be than its key
}

// find returns the rule for a key, or nil.
func (r *rules) find(key []byte) *rule {
	first := byte('"')
	if len(key) > 0 {
		first = key[0]
	}
	if r.first[first] == 0 {
		return nil
	}
	list := r.lists[r.first[first]]
	for i := range list {
		if list[i].key == string(key) {
			return &list[i]
		}
	}
	return nil
}

// make makes the rules that options ask for: later ones replace those before.
func (r *rules) make(o Options) error {
	r.lists = make([][]rule, 1)
	renames := map[string]string{"time": timestampKey, timestampKey: timestampKey, "msg": messageKey}
	maps.Copy(renames, o.Rename)
	fixed := map[string]bool{versionKey: true}
	for _, f := range o.Fields {
		if f.Key == versionKey || f.Key == timestampKey || f.Key == messageKey {
			return fmt.Errorf("field %s: the name belongs to what every document has of its own; choose another", f.Key)
		}
		fixed[f.Key] = true
	}
	for key := range fixed {
		r.set(rule{key: encode(key), drop: true})
	}
	for from, to := range renames {
		if fixed[to] {
			return fmt.Errorf("cannot rename key %s to %s: every document has a %s of its own; choose another name", from, to, to)
		}
		if to == "" {
			return fmt.Errorf("cannot rename key %s to nothing: to leave it out, ignore it", from)
		}
		r.set(newRename(from, to))
	}
	for _, key := range o.IgnoreKeys {
		r.set(rule{key: encode(key), drop: true})
	}
	return nil
}

// newRename makes the rule for a key that gets another name.
func newRename(from, to string) rule {
	r := rule{key: encode(from), name: encode(to), otherwise: encode(from), time: to == timestampKey}
	if from == timestampKey {
		r.otherwise = "_" + timestampKey // where Logstash itself keeps such
	}
	return r
}

// set adds a rule. One for the same key is replaced.
func (r *rules) set(n rule) {
	n.hash, n.otherwiseHash = hashKey(appendPadded(nil, []byte(n.name))[:len(n.name)]), hashKey(appendPadded(nil, []byte(n.otherwise))[:len(n.otherwise)])
	first := (n.key + `"`)[0]
	if r.first[first] == 0 {
		r.first[first] = uint8(len(r.lists))
		r.lists = append(r.lists, nil)
	}
	list := &r.lists[r.first[first]]
	*list = slices.DeleteFunc(*list, func(old rule) bool { return old.key == n.key })
	*list = append(*list, n)
	r.growth = max(r.growth, len(n.name)-len(n.key), len(n.otherwise)-len(n.key))
}

// encode returns s as it stands in JSON, without the quotes.
func encode(s string) string {
	out := make([]byte, expansion*len(s)+slack)
	return string(out[:copyText(out, 0, appendPadded(nil, []byte(s)), len(s))])
}
