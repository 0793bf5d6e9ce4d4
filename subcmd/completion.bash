# Completion of pm's commands for bash. To load it: source <(pm completion bash)

# _pm_table describes what may follow the command $1, a word a line.
_pm_table() {
	commands='' aliases='' flags='' valued='' arguments=''
	case $1 in
@TABLE@
	esac
}

# _pm_offer adds those lines of $1 that begin with $cur to the proposals.
_pm_offer() {
	local word
	while IFS= read -r word; do
		if [[ -n $word && $word == "$cur"* ]]; then
			COMPREPLY+=("${word#"$colon"}")
		fi
	done <<<"$1"
}

# _pm_names prints the names of the instances; none if the daemon is not there.
_pm_names() { timeout 1 "$pm" ${socket[@]+"${socket[@]}"} status -q 2>/dev/null; }

# _pm_argument offers what the argument number $position can be.
_pm_argument() {
	local kinds kind
	mapfile -t kinds <<<"$arguments"
	kind=${kinds[position]-}
	if [[ -z $kind && ${kinds[-1]} == *…* ]]; then
		kind=${kinds[-1]}
	fi
	kind=${kind//[][…]/}
	case $kind in
	SELECTOR) _pm_offer "$(_pm_names)"$'\nall' ;;
	NAME) _pm_offer "$(_pm_names | sed 's/:.*//' | sort -u)" ;;
	SIGNAL) _pm_offer "$(compgen -A signal | sed -n 's/^SIG//p')" ;;
	COMMAND) _pm_table '' && _pm_offer "$commands" ;;
	CMD) mapfile -t COMPREPLY < <(compgen -c -- "$cur") ;;
	*'|'*) _pm_offer "${kind//|/$'\n'}" ;;
	esac
}

_pm_takes_value() { [[ $'\n'$valued == *$'\n'"$1"=* ]]; }

# _pm_values offers the values of the flag $1, where they are known.
_pm_values() {
	local line=$'\n'$valued
	line=${line#*$'\n'"$1"=}
	line=${line%%$'\n'*}
	_pm_offer "${line// /$'\n'}"
}

_pm() {
	local pm=$1 cur colon='' command='' flag='' plain='' position=0 socket=() words word alias line
	local commands aliases flags valued arguments
	type -P -- "$pm" >/dev/null || pm=pm
	# The words as they are typed: bash itself also splits at : and =.
	line=${COMP_LINE:0:COMP_POINT}
	read -ra words <<<"$line"
	[[ $line == *[[:space:]] ]] && words+=('')
	cur=${words[-1]}
	_pm_table ''
	for word in "${words[@]:1:${#words[@]}-2}"; do
		if [[ -n $flag ]]; then
			[[ $flag == --socket ]] && socket=(--socket "$word")
			flag=''
		elif [[ -n $plain ]]; then
			((position++))
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
				((position++))
			fi
		fi
	done
	COMPREPLY=()
	# Of a word with : or = in it, bash replaces only what follows the last one.
	for word in : =; do
		if [[ $COMP_WORDBREAKS == *$word* && $cur == *$word* && ${cur%"${cur##*"$word"}"} == "$colon"* ]]; then
			colon=${cur%"${cur##*"$word"}"}
		fi
	done
	if [[ -n $flag ]]; then
		_pm_values "$flag"
	elif [[ -z $plain && $cur == -*=* ]]; then
		word=${cur%%=*}
		if _pm_takes_value "$word"; then
			cur=${cur#*=}
			colon=''
			_pm_values "$word"
		fi
	elif [[ -z $plain && $cur == -* ]]; then
		_pm_offer "$flags"
	elif [[ -n $commands && $position == 0 ]]; then
		_pm_offer "$commands"
	else
		_pm_argument
	fi
}

# What has no proposals, such as the FILE of a command, completes as a file.
complete -o default -F _pm pm
