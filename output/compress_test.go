package output

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func gunzip(data []byte) ([]byte, error) {
	z, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(z)
}

// names lists the files of a directory.
func names(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return strings.Join(list, " ")
}

// settle prints into a file, and waits until what was rotated is compressed.
func settle(t *testing.T, f *File, text string) {
	t.Helper()
	through(t, f, text)
	f.compressor.wait()
}

// All but the latest of the rotated files are compressed, with mode and time.
func TestCompress(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "log")
	f := NewFile(path, "", FileOptions{Size: 4, Files: 3, Compress: true}, func(c Condition) { t.Error(c) })
	if err := os.WriteFile(path, []byte("0\n"), 0o640); err != nil {
		t.Fatal(err)
	}
	loop, err := NewLoop()
	if err != nil {
		t.Fatal(err)
	}
	defer loop.Close()
	f.adopt(&loop.compressor)
	settle(t, f, "1\n2\n3\n4\n5\n")
	if got := names(t, dir); got != "log log.1 log.2.gz" {
		t.Errorf("there are %s", got)
	}
	if data, _ := whole(t, path); string(data) != "0\n1\n2\n3\n4\n5\n" {
		t.Errorf("they hold %q", data)
	}
	if info, err := os.Stat(path + ".2.gz"); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	settle(t, f, "6\n7\n8\n9\n")
	if got := names(t, dir); got != "log log.1 log.2.gz log.3.gz" {
		t.Errorf("there are %s", got)
	}
	if data, _ := whole(t, path); string(data) != "2\n3\n4\n5\n6\n7\n8\n9\n" {
		t.Errorf("they hold %q", data)
	}
}

// What a killed process has left is completed: a part is made anew, and of two that
// hold the same the compressed one stays.
func TestCompressAfterKill(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "log")
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	_, _ = w.Write([]byte("2\n"))
	_ = w.Close()
	for name, text := range map[string]string{".gzip": z.String()[:9], ".3": "1\n", ".2": "2\n", ".2.gz": z.String(), ".1": "3\n", "": "4\n"} {
		if err := os.WriteFile(path+name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f := NewFile(path, "", FileOptions{Size: 99, Files: 9, Compress: true}, func(c Condition) { t.Error(c) })
	loop, err := NewLoop()
	if err != nil {
		t.Fatal(err)
	}
	defer loop.Close()
	f.adopt(&loop.compressor)
	loop.Settle()
	if got := names(t, dir); got != "log log.1 log.2.gz log.3.gz" {
		t.Errorf("there are %s", got)
	}
	if data, _ := whole(t, path); string(data) != "1\n2\n3\n4\n" {
		t.Errorf("they hold %q", data)
	}
}

// TestGzipPump is a process that rotates and compresses until it is killed.
func TestGzipPump(*testing.T) {
	path := os.Getenv(fileEnv)
	if path == "" {
		return // it is no test
	}
	pumpInto(NewFile(path, "", FileOptions{Size: 200_000, Files: fileFiles, Compress: true}, func(c Condition) { fmt.Fprintln(os.Stderr, c) }))
}

// However often and whenever one who compresses is killed, all lines are there once.
func TestCompressedFilesSurviveKills(t *testing.T) {
	const kills, count = 15, 300_000
	path := filepath.Join(t.TempDir(), "log")
	killPumps(t, kills, count, "TestGzipPump", fileEnv+"="+path)
	checkNumbers(t, path, count)
	if !strings.Contains(names(t, filepath.Dir(path)), ".gz ") {
		t.Error("nothing was compressed")
	}
}
