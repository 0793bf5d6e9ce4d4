package subcmd

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"pm.example/scrape"
	"pm.example/ship"
)

// newTestPipeline ships to w; wait ends it.
func newTestPipeline(t *testing.T, w io.Writer, maxLine int) (p *scrapePipeline, wait func()) {
	t.Helper()
	to, err := ship.ParseReceiver("-")
	if err != nil {
		t.Fatal(err)
	}
	o := ship.Defaults(to)
	o.Stdout = w
	p, err = newScrapePipeline(scrapeOptions{convert: scrape.Options{MaxLine: maxLine}, receivers: []ship.Options{o}})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- p.run(t.Context()) }() // wait waits for it
	return p, func() {
		p.finish()
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
	}
}

// Blocks may end anywhere: what comes out is the same.
func TestStreamInPieces(t *testing.T) {
	input := []byte("a=1\n\nb=2 msg=\"x y\"\n" + strings.Repeat("long ", 20) + "\nlast=1")
	for size := 1; size <= len(input); size++ {
		var out bytes.Buffer
		p, wait := newTestPipeline(t, &out, 30)
		s := p.newStream()
		for rest := input; len(rest) > 0; {
			n := min(size, len(rest))
			if err := s.write(t.Context(), rest[:n]); err != nil {
				t.Fatal(err)
			}
			rest = rest[n:]
		}
		if err := s.end(t.Context()); err != nil {
			t.Fatal(err)
		}
		wait()
		for _, want := range []string{`"a":"1"`, `"b":"2"`, `"message":"x y"`, `"message":"long long long long long long "`, `"last":"1"`} {
			if strings.Count(out.String(), want) != 1 {
				t.Fatalf("in pieces of %d: no %s in %s", size, want, out.String())
			}
		}
		if c := p.counters(); c.lines.Lines != 5 || c.lines.Long != 1 || c.lines.Blank != 1 || c.receivers[0].Sent != 4 {
			t.Fatalf("in pieces of %d: %+v", size, c)
		}
	}
}

// The way of a line allocates nothing.
func TestPipelineAllocatesNothing(t *testing.T) {
	p, wait := newTestPipeline(t, io.Discard, 1<<20)
	s := p.newStream()
	const lines = 1000
	block := serviceLogLines(lines)
	n := testing.AllocsPerRun(100, func() {
		if err := s.write(t.Context(), block); err != nil {
			t.Fatal(err)
		}
	})
	if n > lines/100 {
		t.Errorf("%v allocations for %d lines", n, lines)
	}
	wait()
}
