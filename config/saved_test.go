package config

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

// What is saved comes back as it was, with every key.
func TestSaved(t *testing.T) {
	want, _, err := Load("../examples/full.toml", func(name string) (string, bool) { return name, true })
	if err != nil {
		t.Fatal(err)
	}
	want.include, want.places = nil, nil
	want.Programs = append(want.Programs, NewProgram("plain"))
	want.Programs[0].ExitCodes = nil // which is not the default
	data, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var got *File
	if err := json.Unmarshal(data, &got); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("saved as %s", data)
	}
	if text := string(data); !strings.Contains(text, `{"Name":"plain"}`) {
		t.Errorf("defaults are saved: %s", text)
	}
}

// What was saved before there was a key has its default.
func TestSavedBeforeAKey(t *testing.T) {
	var got *File
	err := json.Unmarshal([]byte(`{"Path":"pm.toml","Programs":[{"Name":"web","Cmd":["sleep","9"],"Logs":{"Rotate":5},"Gone":1}],"Email":{"To":["me@x.org"]}}`), &got)
	if err != nil {
		t.Fatal(err)
	}
	want := newFile("pm.toml")
	want.Email.To = []string{"me@x.org"}
	web := NewProgram("web")
	web.Cmd, web.Logs.Rotate = []string{"sleep", "9"}, 5
	want.Programs = []*Program{web}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v", got.Programs[0])
	}
}

// A program shares nothing with another one that it could be changed by.
func TestNewProgramIsItsOwn(t *testing.T) {
	one, other := reflect.ValueOf(*NewProgram("")), reflect.ValueOf(*NewProgram(""))
	for n := range one.NumField() {
		switch a, b := one.Field(n), other.Field(n); a.Kind() {
		case reflect.Slice, reflect.Map, reflect.Pointer:
			if !a.IsNil() && a.Pointer() == b.Pointer() {
				t.Errorf("programs share %s", one.Type().Field(n).Name)
			}
		}
	}
}
