package config

import (
	"bytes"
	"encoding/json"
	"strconv"
)

// JSONSchema returns the JSON Schema of a config file, for editors and for
// checks outside of pm. A string may hold references wherever it stands.
func JSONSchema() []byte {
	programs := pairs{
		{"type", "object"},
		{"description", "What to run, by name."},
		{"additionalProperties", schemaOf(programFields)},
	}
	properties := pairs{{"programs", programs}, {"daemon", schemaOf(daemonFields)}, {"email", schemaOfEmail()}}
	for _, f := range topFields {
		properties = append(properties, pair{f.key, schemaOfField(f)})
	}
	root := pairs{
		{"$schema", "https://json-schema.org/draft/2020-12/schema"},
		{"title", "pm configuration"},
		{"type", "object"},
		{"properties", properties},
		{"additionalProperties", false},
	}
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(root); err != nil {
		panic("the schema of the configuration cannot be written: " + err.Error())
	}
	return b.Bytes()
}

// schemaOfEmail also allows taskmaster's email: an address only.
func schemaOfEmail() pairs {
	address := pairs{{"type", []any{"string", "array"}}, {"items", schemaText}}
	return pairs{{"anyOf", []any{schemaOf(emailFields), address}}}
}

// schemaOf is the schema of a table; dotted keys become tables in it.
func schemaOf[T any](fields []field[T]) pairs {
	flat := pairs{}
	for _, f := range fields {
		flat = append(flat, pair{f.key, schemaOfField(f)})
	}
	return object(flat.nest())
}

// object makes a schema of properties; a property that has no "type" or other
// keyword first is a table of properties itself.
func object(properties pairs) pairs {
	for i, one := range properties {
		inner, _ := one.value.(pairs)
		if len(inner) > 0 && inner[0].key != "description" {
			properties[i].value = object(inner)
		}
	}
	return pairs{{"type", "object"}, {"properties", properties}, {"additionalProperties", false}}
}

func schemaOfField[T any](f field[T]) pairs {
	s := append(pairs{{"description", f.doc}}, f.schema...)
	if f.text != "" {
		s = append(s, pair{"default", schemaDefault(f)})
	}
	return s
}

// schemaDefault is the default as a number or boolean where it is one.
func schemaDefault[T any](f field[T]) any {
	if f.kind == "boolean" {
		return f.text == "true"
	}
	if number, err := strconv.Atoi(f.text); err == nil {
		return number
	}
	return f.text
}
