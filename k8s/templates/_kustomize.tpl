{{- /*
As much of kustomize as base/ and components/ use: resources, labels, configMapGenerator, and patches. `objects` is what there
is by now, by Kind/name; each of these changes it and prints nothing.
*/ -}}

{{- define "rollout.add" -}}
{{- $kustomization := .root.Files.Get (printf "%s/kustomization.yaml" .folder) | fromYaml -}}
{{- range $kustomization.resources -}}
  {{- $object := include "rollout.read" (dict "root" $.root "file" (printf "%s/%s" $.folder .)) | fromYaml -}}
  {{- include "rollout.label" (dict "root" $.root "object" $object "rules" $kustomization.labels) -}}
  {{- $_ := set $.objects (printf "%s/%s" $object.kind $object.metadata.name) $object -}}
{{- end -}}
{{- range $kustomization.configMapGenerator -}}
  {{- include "rollout.configMap" (merge (dict "rule" . "rules" $kustomization.labels) $) -}}
{{- end -}}
{{- range $kustomization.patches -}}
  {{- $text := .patch | default (include "rollout.read" (dict "root" $.root "file" (printf "%s/%s" $.folder .path))) -}}
  {{- include "rollout.patch" (dict "objects" $.objects "target" .target "text" $text) -}}
{{- end -}}
{{- end -}}

{{- /* A file, with what the values say in the place of what it says. */ -}}
{{- define "rollout.read" -}}
{{- $values := .root.Values -}}
{{- $text := .root.Files.Get .file
    | replace (printf "image: rollout:%s" .root.Chart.AppVersion) (printf "image: %s" $values.image.name)
    | replace (printf "image: rollout-train:%s" .root.Chart.AppVersion) (printf "image: %s" $values.improve.image)
    | replace "namespace=\"rollout\"" (printf "namespace=\"%s\"" .root.Release.Namespace)
    | replace "http://prometheus-operated.monitoring.svc:9090" $values.keda.prometheus -}}
{{- if hasPrefix "components/first-split/" .file -}}
  {{- $text = $text | replace " digits " (printf " %s " $values.firstSplit.model)
      | replace "--champion v1" (printf "--champion %s" $values.firstSplit.champion) -}}
{{- else if hasPrefix "components/improve/" .file -}}
  {{- $text = $text | replace "improve-digits" (printf "improve-%s" $values.improve.model)
      | replace "improve digits" (printf "improve %s" $values.improve.model) -}}
{{- end -}}
{{- $text -}}
{{- end -}}

{{- /* The labels of a kustomization, on an object and, where they are for them, on what is made of its templates. */ -}}
{{- define "rollout.label" -}}
{{- $object := .object -}}
{{- $spec := $object.spec | default dict -}}
{{- $job := dig "jobTemplate" dict $spec -}}
{{- $made := list $job (dig "spec" "template" dict $job) (dig "template" dict $spec) -}}
{{- $made = concat $made (dig "volumeClaimTemplates" list $spec) -}}
{{- range $rule := .rules -}}
  {{- $pairs := merge (dict "app.kubernetes.io/managed-by" $.root.Release.Service) $rule.pairs -}}
  {{- $all := list $object -}}
  {{- if $rule.includeTemplates -}}{{- $all = concat $all $made -}}{{- end -}}
  {{- range $one := $all -}}
    {{- if $one -}}
      {{- $metadata := $one.metadata | default dict -}}
      {{- $_ := set $metadata "labels" (merge (dict) ($metadata.labels | default dict) $pairs) -}}
      {{- $_ := set $one "metadata" $metadata -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- end -}}

{{- /* A ConfigMap of lines NAME=VALUE, on top of the one that is there, or of files. */ -}}
{{- define "rollout.configMap" -}}
{{- $lines := .rule.literals | default list -}}
{{- range .rule.envs -}}
  {{- $lines = concat $lines (splitList "\n" ($.root.Files.Get (printf "%s/%s" $.folder .))) -}}
{{- end -}}
{{- $data := dict -}}
{{- range $lines -}}
  {{- if and (contains "=" .) (not (hasPrefix "#" .)) -}}
    {{- $parts := splitn "=" 2 . -}}
    {{- $_ := set $data $parts._0 $parts._1 -}}
  {{- end -}}
{{- end -}}
{{- range .rule.files -}}
  {{- $_ := set $data . ($.root.Files.Get (printf "%s/%s" $.folder .)) -}}
{{- end -}}
{{- $key := printf "ConfigMap/%s" .rule.name -}}
{{- if eq (.rule.behavior | default "create") "merge" -}}
  {{- $_ := mergeOverwrite (get .objects $key).data $data -}}
{{- else -}}
  {{- $labels := dig "options" "labels" dict .rule -}}
  {{- $object := dict "apiVersion" "v1" "kind" "ConfigMap" "metadata" (dict "name" .rule.name "labels" $labels) "data" $data -}}
  {{- include "rollout.label" (dict "root" .root "object" $object "rules" .rules) -}}
  {{- $_ := set .objects $key $object -}}
{{- end -}}
{{- end -}}

{{- /* A list of JSON 6902 operations, `add` to an object or to a list in it, or an object to be merged. */ -}}
{{- define "rollout.patch" -}}
{{- range $key, $object := .objects -}}
  {{- if hasPrefix "- " $.text | or (contains "\n- op:" $.text) -}}
    {{- $kinds := printf "^(%s)/(%s)$" ($.target | default dict).kind ($.target | default dict).name -}}
    {{- if regexMatch $kinds $key -}}
      {{- range fromYamlArray $.text -}}
        {{- if eq .op "add" -}}{{- include "rollout.set" (dict "in" $object "path" (splitList "/" .path | rest) "value" .value) -}}{{- end -}}
      {{- end -}}
    {{- end -}}
  {{- else -}}
    {{- $patch := fromYaml $.text -}}
    {{- if eq $key (printf "%s/%s" $patch.kind $patch.metadata.name) -}}
      {{- if eq (get $patch "$patch" | default "") "delete" -}}
        {{- $_ := unset $.objects $key -}}
      {{- else -}}
        {{- include "rollout.merge" (dict "into" $object "from" $patch) -}}
      {{- end -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- end -}}

{{- /* Sets what a path leads to; `-` is the end of a list, which cannot grow in its place and is set anew. */ -}}
{{- define "rollout.set" -}}
{{- $name := first .path -}}
{{- $left := rest .path -}}
{{- if not $left -}}
  {{- $_ := set .in $name .value -}}
{{- else if kindIs "slice" (get .in $name) -}}
  {{- $list := get .in $name -}}
  {{- if eq (first $left) "-" -}}
    {{- $_ := set .in $name (append $list .value) -}}
  {{- else -}}
    {{- include "rollout.set" (dict "in" (index $list (atoi (first $left))) "path" (rest $left) "value" .value) -}}
  {{- end -}}
{{- else -}}
  {{- include "rollout.set" (dict "in" (get .in $name) "path" $left "value" .value) -}}
{{- end -}}
{{- end -}}

{{- /* Merges an object into another: members of lists that have a name into the one of that name. */ -}}
{{- define "rollout.merge" -}}
{{- range $name, $value := .from -}}
  {{- $there := get $.into $name -}}
  {{- if and (kindIs "map" $value) (kindIs "map" $there) -}}
    {{- include "rollout.merge" (dict "into" $there "from" $value) -}}
  {{- else if and (kindIs "slice" $value) (kindIs "slice" $there) -}}
    {{- range $one := $value -}}
      {{- range $other := $there -}}
        {{- if eq $one.name $other.name -}}{{- include "rollout.merge" (dict "into" $other "from" $one) -}}{{- end -}}
      {{- end -}}
    {{- end -}}
  {{- else -}}
    {{- $_ := set $.into $name $value -}}
  {{- end -}}
{{- end -}}
{{- end -}}
