#compdef pm
# Completion of pm's commands for zsh: put it into a directory of $fpath as _pm,
# or load it with: source <(pm completion zsh)

# _pm_table describes what may follow the command $1, a word a line.
_pm_table() {
	commands='' aliases='' flags='' valued='' arguments=''
	case $1 in
@TABLE@
	esac
}

# _pm_offer proposes the lines of $1.
_pm_offer() {
	local -a list
	list=("${(@f)1}")
	list=("${(@)list:#}")
	(( $#list )) && compadd -a list
}

# _pm_names prints the names of the instances; none if the daemon is not there.
_pm_names() { timeout 1 "$pm" "${socket[@]}" status -q 2>/dev/null }

# _pm_argument proposes what the argument number $position, from 0, can be.
_pm_argument() {
	local -a kinds
	local kind newline=$'\n'
	kinds=("${(@f)arguments}")
	kind=${kinds[position+1]}
	[[ -z $kind && $kinds[-1] == *…* ]] && kind=$kinds[-1]
	kind=${${${kind//\[/}//\]/}//…/}
	case $kind in
		SELECTOR) _pm_offer "$(_pm_names)"$'\nall' ;;
		NAME) _pm_offer "$(_pm_names | sed 's/:.*//' | sort -u)" ;;
		SIGNAL) compadd -- ${(@)signals:#(EXIT|ZERR|DEBUG)} ;;
		COMMAND) _pm_table ''; _pm_offer "$commands" ;;
		CMD) _command_names -e ;;
		*'|'*) _pm_offer "${kind//\|/$newline}" ;;
		*) _files ;;
	esac
}

_pm_takes_value() { [[ $'\n'$valued == *$'\n'"$1"=* ]] }

# _pm_values proposes the values of the flag $1, or files.
_pm_values() {
	local newline=$'\n' line=$'\n'$valued
	line=${line#*$'\n'"$1"=}
	line=${line%%$'\n'*}
	if [[ -n $line ]]; then
		_pm_offer "${line// /$newline}"
	else
		_files
	fi
}

_pm() {
	local pm=$words[1] command='' flag='' plain='' word alias position=0
	local commands aliases flags valued arguments
	local -a socket
	whence -p -- "$pm" >/dev/null || pm=pm
	_pm_table ''
	for word in "${(@)words[2,CURRENT-1]}"; do
		if [[ -n $flag ]]; then
			[[ $flag == --socket ]] && socket=(--socket "$word")
			flag=''
		elif [[ -n $plain ]]; then
			(( position++ ))
		elif [[ $word == -- ]]; then
			plain=1
		elif [[ $word == -?* ]]; then
			[[ $word == --socket=* ]] && socket=("$word")
			_pm_takes_value "$word" && flag=$word
		else
			alias=$'\n'$aliases$'\n'
			if [[ $alias == *$'\n'"$word"=* ]]; then
				alias=${alias#*$'\n'"$word"=}
				word=${alias%%$'\n'*}
			fi
			if [[ $'\n'$commands$'\n' == *$'\n'"$word"$'\n'* ]]; then
				command=${command:+$command }$word
				_pm_table "$command"
			else
				(( position++ ))
			fi
		fi
	done
	word=$words[CURRENT]
	if [[ -n $flag ]]; then
		_pm_values "$flag"
	elif [[ -z $plain && $word == -*=* ]]; then
		compset -P '*='
		_pm_values "${word%%=*}"
	elif [[ -z $plain && $word == -* ]]; then
		_pm_offer "$flags"
	elif [[ -n $commands && $position == 0 ]]; then
		_pm_offer "$commands"
	else
		_pm_argument
	fi
}

if [[ $funcstack[1] == _pm ]]; then
	_pm "$@"
elif (( $+functions[compdef] )); then
	compdef _pm pm
fi
