package runner

import "testing"

func TestSelectors(t *testing.T) {
	for _, c := range []struct {
		selector, name, program, group string
		want                           bool
	}{
		{"all", "web", "web", "", true},
		{"web", "web", "web", "", true},
		{"web", "web:1", "web", "", true},
		{"web:1", "web:1", "web", "", true},
		{"web:1", "web:11", "web", "", false},
		{"web:*", "web", "web", "", true},
		{"web:*", "web:1", "web", "", true},
		{"web:*", "website", "website", "", false},
		{"w*", "web:1", "web", "", true},
		{"w?b", "web", "web", "", true},
		{"[vw]eb:1", "web:1", "web", "", true},
		{"group:back", "db", "db", "back", true},
		{"group:b*", "db", "db", "back", true},
		{"group:back", "back", "back", "", false},
		{"group:*", "db", "db", "", false},
		{"db", "web", "web", "db", false},
	} {
		s, err := ParseSelector(c.selector)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.Match(c.name, c.program, c.group); got != c.want {
			t.Errorf("%q matches %s of group %q: %v, want %v", c.selector, c.name, c.group, got, c.want)
		}
		if s.String() != c.selector {
			t.Errorf("%q prints as %q", c.selector, s)
		}
	}
	for _, bad := range []string{"", "[", "group:[", "a\\", string(make([]byte, 2000))} {
		if s, err := ParseSelector(bad); err == nil {
			t.Errorf("%.20q was accepted as %v", bad, s)
		}
	}
}

func FuzzSelector(f *testing.F) {
	f.Add("web:*", "web:1", "web", "g")
	f.Add("group:[a-", "web:1", "web", "g")
	f.Fuzz(func(t *testing.T, text, name, program, group string) {
		s, err := ParseSelector(text)
		if err != nil {
			return
		}
		s.Match(name, program, group)
		if again, err := ParseSelector(s.String()); err != nil || again != s {
			t.Errorf("%q prints as %q, which reads as %v, %v", text, s, again, err)
		}
	})
}
