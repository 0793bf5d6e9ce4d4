// Package task is the life of a task: its states, their categories, which
// state may follow which, and what pm does when a task ends in one of them.
//
// The states are Mesos's and the consequences are Marathon's; they hold on
// every engine. One table (see [Table]) is the single source of all of it: the
// daemon, the executor, the tests and the documentation read it from there.
//
// The package is pure: it starts nothing, keeps nothing and imports nothing of
// pm.
package task
