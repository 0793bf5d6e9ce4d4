// Package config reads what is to run: TOML, and YAML in the dialect of
// taskmaster, through one declaration of every key.
//
// It turns a file into a [File], reports every fault at once with its place,
// and says what a changed file requires of what already runs. It starts
// nothing and knows nothing of processes.
package config
