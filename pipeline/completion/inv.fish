# Completes ./inv in fish; installed by ./inv completion. Among the settings, as fish does not look for the
# completions of what is called by a path before it has been completed by its name.
function __xen_aur_pipeline
    set -l words (commandline --tokenize --current-process --cut-at-cursor)
    set -a words (commandline --current-token --cut-at-cursor)
    set -l found ($words[1] --complete -- $words[2..-1] 2> /dev/null)
    if test (count $found) -gt 0
        printf '%s\n' $found
    else
        __fish_complete_path (commandline --current-token --cut-at-cursor)
    end
end
complete --command inv --no-files --arguments '(__xen_aur_pipeline)'
