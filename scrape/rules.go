package scrape

import (
	"errors"
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

// The keys of what documents have of their own.
const (
	timestampKey = "@timestamp"
	versionKey   = "@version"
	messageKey   = "message"
	truncatedKey = "truncated"
)

// makeFrame encodes what every document begins with.
func makeFrame(fields []Field) ([]byte, error) {
	frame := []byte(`{"` + versionKey + `":"1"`)
	var faults []error
	for i, f := range fields {
		if slices.ContainsFunc(fields[i+1:], func(later Field) bool { return encode(later.Key) == encode(f.Key) }) {
			continue
		}
		value, err := f.encoded()
		faults = append(faults, err)
		frame = append(frame, `,"`+encode(f.Key)+`":`+value...)
	}
	return frame, errors.Join(faults...)
}

// isOwn reports whether documents have a key of their own.
func isOwn(key string) bool {
	return key == timestampKey || key == versionKey || key == messageKey || key == truncatedKey
}

// encoded returns the field's value as it stands in a document.
func (f Field) encoded() (value string, err error) {
	if isOwn(f.Key) {
		return "", fmt.Errorf("field %s: documents have a %s of their own; choose another name", f.Key, f.Key)
	}
	if !f.JSON {
		return `"` + encode(f.Value) + `"`, nil
	}
	value, ok := compact(f.Value)
	if !ok {
		return "", fmt.Errorf("field %s: %q is not JSON", f.Key, f.Value)
	}
	return value, nil
}

// rule says what becomes of a key. Keys and names are as they stand in JSON.
type rule struct {
	key           string
	drop          bool
	name          string // the new one
	time          bool   // only a time can have it
	otherwise     string // the name for what is no time
	dropOtherwise bool

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

// makeRules makes the rules that options ask for. What is ignored is ignored
// also if it has a new name, and a key that has a new name may be that of a field.
func makeRules(o Options) (*rules, error) {
	r := &rules{lists: make([][]rule, 1)}
	taken := map[string]bool{versionKey: true} // by what stands in every document
	for _, f := range o.Fields {
		taken[encode(f.Key)] = !isOwn(f.Key) // else it is a fault already
	}
	for key := range taken {
		r.set(rule{key: key, drop: true})
	}
	renames := map[string]string{"time": timestampKey, timestampKey: timestampKey, "msg": messageKey}
	maps.Copy(renames, o.Rename)
	var faults []error
	for _, from := range slices.Sorted(maps.Keys(renames)) {
		n, err := newRename(from, renames[from], taken)
		faults = append(faults, err)
		r.set(n)
	}
	for _, key := range o.IgnoreKeys {
		r.set(rule{key: encode(key), drop: true})
	}
	return r, errors.Join(faults...)
}

// newRename makes the rule for a key that gets another name, which must not be
// taken.
func newRename(from, to string, taken map[string]bool) (r rule, err error) {
	r = rule{key: encode(from), name: encode(to), time: to == timestampKey, otherwise: encode(from)}
	switch {
	case to == "":
		return r, fmt.Errorf("cannot rename key %s to nothing: to leave it out, ignore it", from)
	case taken[r.name]:
		return r, fmt.Errorf("cannot rename key %s to %s: documents have a %s of their own; choose another name", from, to, to)
	case from == timestampKey:
		r.otherwise = "_" + timestampKey // where Logstash itself keeps such
	}
	r.dropOtherwise = taken[r.otherwise]
	return r, nil
}

// set adds a rule. One for the same key is replaced.
func (r *rules) set(n rule) {
	n.hash, n.otherwiseHash = hashName(n.name), hashName(n.otherwise)
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

// hashName hashes a name as hashKey does the key of a line.
func hashName(name string) uint32 { return hashKey(appendPadded(nil, []byte(name))[:len(name)]) }

// encode returns s as it stands in JSON, without the quotes.
func encode(s string) string {
	out := make([]byte, expansion*len(s)+slack)
	return string(out[:copyText(out, 0, appendPadded(nil, []byte(s)), len(s))])
}
