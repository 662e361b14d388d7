# fish completion of rerank

function __rerank_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    set -l program (string replace -r '^~/' "$HOME/" -- $words[1])
    set -l lines (env _RERANK_COMPLETE=fish $program $words[2..] "$current" 2>/dev/null)
    if test "$lines[1]" = files
        __fish_complete_path "$current"
    else
        printf '%s\n' $lines[2..]
    end
end

complete --command rerank --no-files --keep-order --arguments '(__rerank_complete)'
