{{- define "fedprune.labels" -}}
app.kubernetes.io/name: fedprune
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "fedprune.coordinator" -}}
{{ .Release.Name }}-coordinator
{{- end }}

{{- define "fedprune.pod" -}}
automountServiceAccountToken: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "fedprune.container" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}

{{- define "fedprune.run" -}}
{{ if .Values.task.configMap }}/task/run.toml{{ else }}/app/digits.toml{{ end }}
{{- end }}

{{- define "fedprune.task" -}}
{{ if .Values.task.configMap }}/task/task.py{{ else }}/app/lab/fedprune_lab/digits.py{{ end }}
{{- end }}
