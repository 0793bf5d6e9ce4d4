// Package subcmd is pm's command line: one file for each subcommand, and the
// places where the other packages meet.
//
// [Main] is all that a main function needs. The table of commands is in app.go,
// which also puts the same defaults on each of them; exit.go is the one place
// that prints errors and chooses exit codes; assemble.go turns the description
// of a program into what the runner keeps; daemon.go puts the parts of the
// daemon together. Nothing here is used by the packages below.
package subcmd
