package config

import "time"

// Scrape says how the lines that a program prints are turned into documents and
// shipped, as pm scrape-logs does it.
type Scrape struct {
	To         []string // URLs of receivers; none: nothing is scraped
	Format     string   // "auto", "logfmt" or "json"
	Invalid    string   // "wrap" or "drop"
	IgnoreKeys []string
	Fields     map[string]string // a name that ends in ":" has JSON as its value
	Rename     map[string]string
	System     bool
	MaxLine    int64 // bytes
	SizeLimit  int64 // bytes of a document; 0: none
	RateLimit  int   // documents a second; 0: none
	Buffer     int64 // bytes in memory for each receiver
	Resend     int64 // bytes
	OnFull     string
	Spool      string // a directory; empty: none
	SpoolSize  int64  // bytes
	Linger     time.Duration
}

// On reports whether anything is scraped.
func (s *Scrape) On() bool { return len(s.To) > 0 }

// scrapeFields are the keys of logs.scrape. Those of pm scrape-logs mean the same.
var scrapeFields = []field[Program]{
	declare("logs.scrape.to", listCodec, func(p *Program) *[]string { return &p.Logs.Scrape.To }, "", Live,
		"Receivers, each as `tcp://HOST:PORT`, of the lines that the program prints, as JSON: see pm scrape-logs for all forms. The lines stay where they go otherwise. Default: none."),
	declare("logs.scrape.format", wordCodec([]string{"auto", "logfmt", "json"}, nil), func(p *Program) *string { return &p.Logs.Scrape.Format }, "auto", Live,
		"What the lines are; `auto` looks at each."),
	declare("logs.scrape.invalid", wordCodec([]string{"wrap", "drop"}, nil), func(p *Program) *string { return &p.Logs.Scrape.Invalid }, "wrap", Live,
		"What becomes of lines that are neither logfmt nor JSON: they are wrapped as a message, or dropped."),
	declare("logs.scrape.ignore_keys", listCodec, func(p *Program) *[]string { return &p.Logs.Scrape.IgnoreKeys }, "", Live,
		"Top-level keys of lines that are left out."),
	declare("logs.scrape.fields", mapCodec("fields", false, validField), func(p *Program) *map[string]string { return &p.Logs.Scrape.Fields }, "", Live,
		"Fields that are added. The value of a name that ends in a colon is JSON."),
	declare("logs.scrape.rename", mapCodec("keys", false, validField), func(p *Program) *map[string]string { return &p.Logs.Scrape.Rename }, "", Live,
		"Top-level keys that are called something else."),
	declare("logs.scrape.system", boolCodec, func(p *Program) *bool { return &p.Logs.Scrape.System }, "false", Live,
		"Whether srchost, region, zone, instance-id and scid, the program's label scId, are added, as far as they are known."),
	declare("logs.scrape.max_line", sizeCodec, func(p *Program) *int64 { return &p.Logs.Scrape.MaxLine }, "1M", Live,
		"Longer lines are cut, which makes them invalid."),
	declare("logs.scrape.size_limit", sizeCodec, func(p *Program) *int64 { return &p.Logs.Scrape.SizeLimit }, "", Live,
		"Longer documents are dropped. Default: none."),
	declare("logs.scrape.rate_limit", intCodec(0, 1_000_000_000), func(p *Program) *int { return &p.Logs.Scrape.RateLimit }, "0", Live,
		"What is more than so many documents a second is dropped. 0: nothing is."),
	declare("logs.scrape.buffer", sizeCodec, func(p *Program) *int64 { return &p.Logs.Scrape.Buffer }, "1M", Live,
		"How much may wait in memory for each receiver."),
	declare("logs.scrape.resend", sizeCodec, func(p *Program) *int64 { return &p.Logs.Scrape.Resend }, "8M", Live,
		"How much that was acknowledged is kept in memory, to be sent again after a connection was reset: what a receiver that is killed may not have dealt with."),
	declare("logs.scrape.on_full", wordCodec([]string{"block", "drop"}, nil), func(p *Program) *string { return &p.Logs.Scrape.OnFull }, "block", Live,
		"What happens when nothing more can wait: the program does, once its pipe is full, or lines are dropped and counted. A program that writes to a file itself never waits."),
	declare("logs.scrape.spool", pathCodec, func(p *Program) *string { return &p.Logs.Scrape.Spool }, "", Live,
		"A directory for what cannot be sent. Each instance has one in it. Default: none."),
	declare("logs.scrape.spool_size", sizeCodec, func(p *Program) *int64 { return &p.Logs.Scrape.SpoolSize }, "1G", Live,
		"How much each receiver of an instance may have there."),
	declare("logs.scrape.linger", durationCodec, func(p *Program) *time.Duration { return &p.Logs.Scrape.Linger }, "10s", Live,
		"How long to try at the end to deliver the rest."),
}

func validField(name string) bool { return name != "" && name != ":" }
