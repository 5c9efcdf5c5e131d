# Completes ./inv in fish; installed by ./inv completion.
function __xen_aur_pipeline
    set -l words (commandline --tokenize --cut-at-cursor) (commandline --current-token --cut-at-cursor)
    set -l found ($words[1] --complete -- $words[2..-1] 2> /dev/null)
    if test (count $found) -gt 0
        printf '%s\n' $found
    else
        __fish_complete_path (commandline --current-token --cut-at-cursor)
    end
end
complete --command inv --no-files --arguments '(__xen_aur_pipeline)'
