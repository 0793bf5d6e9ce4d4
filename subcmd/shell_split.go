package subcmd

import (
	"strings"

	"pm.example/socket"
)

// shellScan reads a line of the control shell: words with the quoting that
// shells have, commands with ; or a newline between them, and comments that
// begin with # where a word could.
type shellScan struct {
	commands [][]string // those that are complete
	words    []string   // of the command at the end of the line, those that are complete
	word     strings.Builder
	inWord   bool // the line ends in a word: the one in word, which began at start
	start    int
	comment  bool // the line ends in a comment
}

// splitLine returns the words of each command of a line.
func splitLine(line string) ([][]string, error) {
	var s shellScan
	if err := s.scan(line); err != nil {
		return nil, err
	}
	s.endCommand()
	return s.commands, nil
}

// scan reads a line. After an error the line has been read up to what is wrong;
// in a quote that has no end, up to its end.
func (s *shellScan) scan(line string) error {
	for i := 0; i < len(line); {
		n, err := s.next(line, i)
		if err != nil {
			return err
		}
		i += n
	}
	return nil
}

// next reads what stands at i, and returns its length.
func (s *shellScan) next(line string, i int) (int, error) {
	rest := line[i:]
	switch c := rest[0]; {
	case c == ' ' || c == '\t' || c == '\r':
		s.endWord()
	case c == ';' || c == '\n':
		s.endCommand()
	case c == '#' && !s.inWord:
		text, _, more := strings.Cut(rest, "\n")
		s.comment = !more
		return len(text), nil
	case strings.IndexByte("|&<>", c) >= 0:
		return 0, &socket.Problem{
			Message: "the shell has no " + string(c) + ": it only runs commands of pm, with ; between them",
			Hint:    "quote it if it belongs to a name, or use pm in a shell of the system",
			Code:    socket.CodeUsage,
		}
	default:
		s.begin(i)
		return s.part(rest)
	}
	return 1, nil
}

// part reads one character of a word, or one quoted part of it.
func (s *shellScan) part(rest string) (int, error) {
	switch rest[0] {
	case '\'':
		text, _, closed := strings.Cut(rest[1:], "'")
		s.word.WriteString(text)
		if !closed {
			return 0, usagef("a quote ' has no end")
		}
		return len(text) + 2, nil
	case '"':
		return s.doubleQuoted(rest)
	case '\\':
		if len(rest) == 1 {
			return 0, usagef(`a \ stands at the end of the line`)
		}
		s.word.WriteByte(rest[1])
		return 2, nil
	}
	s.word.WriteByte(rest[0])
	return 1, nil
}

// doubleQuoted reads a part in double quotes, where \ means itself but before
// what it could be needed for.
func (s *shellScan) doubleQuoted(rest string) (int, error) {
	for i := 1; i < len(rest); i++ {
		switch {
		case rest[i] == '"':
			return i + 1, nil
		case rest[i] == '\\' && i+1 < len(rest) && strings.IndexByte("\"\\$`", rest[i+1]) >= 0:
			i++
		}
		s.word.WriteByte(rest[i])
	}
	return 0, usagef(`a quote " has no end`)
}

func (s *shellScan) begin(i int) {
	if !s.inWord {
		s.inWord, s.start = true, i
	}
}

func (s *shellScan) endWord() {
	if s.inWord {
		s.words = append(s.words, s.word.String())
		s.word.Reset()
		s.inWord = false
	}
}

func (s *shellScan) endCommand() {
	s.endWord()
	if len(s.words) > 0 {
		s.commands = append(s.commands, s.words)
		s.words = nil
	}
}

// plainBytes mean themselves anywhere on a line.
const plainBytes = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:=,@%+*?[]{}~^!"

// quoteWord writes a word such that splitLine reads it as it is.
func quoteWord(word string) string {
	if word != "" && strings.Trim(word, plainBytes) == "" {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}
