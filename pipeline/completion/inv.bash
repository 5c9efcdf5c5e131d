# Completes ./inv in bash; installed by ./inv completion, which bash-completion finds by its name.
_xen_aur_pipeline() {
  local word=${COMP_WORDS[COMP_CWORD]} words=("${COMP_WORDS[@]:1:COMP_CWORD}") line
  # Bash parts words at "=" and ":"; the project's command is to see them whole.
  if type _get_comp_words_by_ref > /dev/null 2>&1; then
    local cword
    _get_comp_words_by_ref -n =: -w words -i cword -c word
    words=("${words[@]:1:cword}")
  fi
  COMPREPLY=()
  while IFS= read -r line; do
    COMPREPLY+=("${line%%$'\t'*}")
  done < <("${COMP_WORDS[0]/#\~/$HOME}" --complete -- "${words[@]}" 2> /dev/null)
  if type __ltrim_colon_completions > /dev/null 2>&1; then
    __ltrim_colon_completions "$word"
  fi
  # What ends in "=" or goes on behind it: bash itself puts back what stands before.
  if [[ $word == *=* ]]; then
    COMPREPLY=("${COMPREPLY[@]#"${word%%=*}="}")
  fi
}
complete -o default -F _xen_aur_pipeline inv
