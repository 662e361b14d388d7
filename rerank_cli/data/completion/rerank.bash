# bash completion of rerank

_rerank() {
    local IFS=$'\n' line
    COMPREPLY=()
    while read -r line; do
        if [[ $line == values ]]; then
            compopt +o default 2>/dev/null  # otherwise bash adds files where nothing fits
        elif [[ $line != files ]]; then
            COMPREPLY+=("$line")
        fi
    done < <(_RERANK_COMPLETE=bash COMP_LINE="${COMP_LINE:0:COMP_POINT}" \
        _RERANK_BREAKS="$COMP_WORDBREAKS" "${1/#\~\//$HOME/}" "$1" 2>/dev/null)
}

complete -o default -F _rerank rerank
