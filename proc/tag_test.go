package proc

import "testing"

func TestTagSpan(t *testing.T) {
	s := &tagSpan{top: tagTop, slots: 4, width: tagWidth1}
	used := map[uint64]bool{}
	for range 4 {
		tag := s.take(func(tag uint64) bool { return used[tag] })
		if tag == 0 || used[tag] {
			t.Fatalf("tag %d is none, or taken", tag)
		}
		used[tag] = true
		for _, inside := range []uint64{tag, tag - 1, tag - tagWidth1 + 1} {
			if base, ours := s.base(inside); !ours || base != tag {
				t.Errorf("base(%d) = %d %v, want %d", inside, base, ours, tag)
			}
		}
	}
	if tag := s.take(func(tag uint64) bool { return used[tag] }); tag != 0 {
		t.Errorf("a fifth tag %d of four", tag)
	}
	for _, outside := range []uint64{tagTop + 1, ^uint64(0), tagTop - 4*tagWidth1, 0} {
		if _, ours := s.base(outside); ours {
			t.Errorf("%d counts as ours", outside)
		}
	}
}

func TestParseTag(t *testing.T) {
	const head = "Limit                     Soft Limit           Hard Limit           Units     \n"
	for text, want := range map[string]uint64{
		head + "Max realtime timeout      7                    2305843009196916736  us        \n": 2305843009196916736,
		head + "Max realtime timeout      unlimited            unlimited            us        \n": ^uint64(0),
	} {
		if got, err := parseTag([]byte(text)); err != nil || got != want {
			t.Errorf("parseTag(%q) = %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", head, "Max realtime timeout x", "Max realtime timeout 1 x us"} {
		if got, err := parseTag([]byte(text)); err == nil {
			t.Errorf("parseTag(%q) = %d, want an error", text, got)
		}
	}
}

func TestParseStat(t *testing.T) {
	const rest = " 7 8 0 -1 4194560 0 0 0 0 1 2 3 4 20 0 1 0 4242 0 0"
	for text, want := range map[string]stat{
		"12 (sh) S 1" + rest:            {12, "sh", 'S', 1, 8, false, 1, 4242, false, false},
		"12 (a) b (c)) Z 99" + rest:     {12, "a) b (c)", 'Z', 99, 8, false, 1, 4242, false, false},
		"12 () R 1" + rest + " 1 2 3\n": {12, "", 'R', 1, 8, false, 1, 4242, false, false},
	} {
		if got, err := parseStat([]byte(text)); err != nil || got != want {
			t.Errorf("parseStat(%q) = %+v, %v, want %+v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "(", ")(", "12 (sh) S 1", "x (sh) S 1" + rest, "12 (sh) SS 1" + rest} {
		if got, err := parseStat([]byte(text)); err == nil {
			t.Errorf("parseStat(%q) = %+v, want an error", text, got)
		}
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte("12 (sh) S 1 7 7 0 -1 4194560 0 0 0 0 1 2 3 4 20 0 1 0 4242 0 0"))
	f.Fuzz(func(_ *testing.T, data []byte) {
		_, _ = parseStat(data)
		_, _ = parseTag(data)
		entries(data, func([]byte) {})
	})
}

func TestParseSignal(t *testing.T) {
	for text, want := range map[string]string{
		"TERM": "TERM", "sigusr1": "USR1", "9": "KILL", "33": "33", "34": "RTMIN", "37": "RTMIN+3",
		"SIGRTMIN+3": "RTMIN+3", "rtmax-27": "RTMIN+3", "RTMIN+16": "RTMAX-14", "RTMAX": "RTMAX", "RTMIN+30": "RTMAX",
	} {
		if sig, err := ParseSignal(text); err != nil || SignalName(sig) != want {
			t.Errorf("ParseSignal(%q) = %v, %v, want %s", text, sig, err, want)
		}
	}
	for _, text := range []string{"", "0", "65", "-1", "SIG", "NOSUCH", "RTMIN-1", "RTMIN+", "RTMIN+31", "RTMAX-31", "RTMIN++1", "RTMIN+RTMAX-1"} {
		if sig, err := ParseSignal(text); err == nil {
			t.Errorf("ParseSignal(%q) = %v, want an error", text, sig)
		}
	}
}
