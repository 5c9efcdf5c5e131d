#compdef inv
# Completes ./inv in zsh; installed by ./inv completion.
local -a described
local line word
for line in "${(@f)$(${~words[1]} --complete -- "${(@)words[2,CURRENT]}" 2> /dev/null)}"; do
  word=${line%%$'\t'*}
  [[ -n $word ]] || continue
  if [[ $line == *$'\t'* ]]; then
    described+=("${word//:/\\:}:${line#*$'\t'}")
  else
    described+=("${word//:/\\:}")
  fi
done
if (( ${#described} )); then
  _describe 'command' described
else
  _files
fi
