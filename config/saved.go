package config

import (
	"encoding/json"
	"reflect"
)

// A configuration is saved as JSON with what is not the default, and read over the
// defaults. So it takes little room and time, and what an earlier release has saved
// has the default of a key that came later, as the file has that it was read from.

// MarshalJSON writes what of a program is not the default.
func (p *Program) MarshalJSON() ([]byte, error) {
	own, base := reflect.ValueOf(*p), reflect.ValueOf(defaults())
	differs := map[string]any{}
	for n := range own.NumField() {
		if value := own.Field(n).Interface(); !reflect.DeepEqual(value, base.Field(n).Interface()) {
			differs[own.Type().Field(n).Name] = value
		}
	}
	return json.Marshal(differs)
}

// UnmarshalJSON reads a program that was saved.
func (p *Program) UnmarshalJSON(data []byte) error {
	type plain Program // without this method
	*p = *NewProgram("")
	return json.Unmarshal(data, (*plain)(p))
}

// UnmarshalJSON reads a configuration that was saved.
func (f *File) UnmarshalJSON(data []byte) error {
	type plain File
	*f = *newFile("")
	return json.Unmarshal(data, (*plain)(f))
}
