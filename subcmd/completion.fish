# Completion of pm's commands for fish: put it into
# ~/.config/fish/completions/pm.fish, or load it with: pm completion fish | source

# __pm_at tells whether the command typed so far is $argv; nothing: none yet.
# Each line of $__pm_known is a command, and what else it is called.
function __pm_at
    set -l typed
    set -l value 0
    for word in (commandline -opc)[2..-1]
        if test $value = 1
            set value 0
        else if string match -q -- '--socket' $word
            set value 1
        else if string match -qv -- '-*' $word
            set -l name (string join ' ' -- $typed $word)
            for line in $__pm_known
                set -l names (string split , -- $line)
                if contains -- $name $names
                    set typed (string split ' ' -- $names[1])
                    break
                end
            end
        end
    end
    test "$typed" = "$argv"
end

# __pm_names prints the names of the instances; none if the daemon is not there.
function __pm_names
    set -l socket
    set -l words (commandline -opc)
    for n in (seq (count $words))
        switch $words[$n]
            case --socket
                set socket $words[$n] $words[(math $n + 1)]
            case '--socket=*'
                set socket $words[$n]
        end
    end
    timeout 1 pm $socket status -q 2>/dev/null
end

function __pm_programs
    __pm_names | string replace -r ':.*' '' | sort -u
end

function __pm_signals
    kill -l | string split ' ' | string match -r '^[A-Z].*'
end

complete -c pm -e
complete -c pm -f
@TABLE@
