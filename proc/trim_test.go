package proc

import "testing"

func TestOwnPages(t *testing.T) {
	const exe = "/usr/bin/pm"
	for line, want := range map[string]bool{
		"00400000-0096b000 r-xp 00000000 fe:00 99 /usr/bin/pm\n":    true,
		"0096b000-00f26000 r--p 0056b000 fe:00 99 /usr/bin/pm\n":    true,
		"00f26000-00fb7000 rw-p 00b26000 fe:00 99 /usr/bin/pm\n":    false,
		"00400000-0096b000 r-xp 00000000 fe:00 99 /usr/bin/other\n": false,
		"7f1857ea0000-7f1858000000 rw-p 00000000 00:00 0 \n":        false,
		"zz-00 r-xp 00000000 fe:00 99 /usr/bin/pm":                  false,
		"": false,
	} {
		if _, _, ok := ownPages(line, exe); ok != want {
			t.Errorf("ownPages(%q) = %v, want %v", line, ok, want)
		}
	}
	Trim() // and this process still runs
}
