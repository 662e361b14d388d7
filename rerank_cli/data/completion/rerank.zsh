#compdef rerank
# zsh completion of rerank

_rerank() {
    local -a lines values
    local line
    lines=("${(@f)$(_RERANK_COMPLETE=zsh ${(Q)words[1]/#\~\//$HOME/} "${(@Q)words[2,CURRENT]}" 2>/dev/null)}")
    if [[ $lines[1] == files ]]; then
        compset -P '--[a-z-]#='
        _files
        return
    fi
    for line in "${(@)lines[2,-1]}"; do
        values+=("${${line%%$'\t'*}//:/\\:}${${line#*$'\t'}:+:${line#*$'\t'}}")
    done
    _describe -V rerank values
}

if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _rerank "$@"
else
    (( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
    compdef _rerank rerank
fi
