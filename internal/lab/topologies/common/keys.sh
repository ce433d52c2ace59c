# What members of the groups need: a key pair each, and an identity on the control channel by the operator's authority.
manycast key create authority --out "{{.Lab}}/ctl/authority.key"
make_member() { # node, name, role, address
	manycast key create member "$2" --out "{{.Lab}}/$1/$3.member"
	manycast key create identity "$2" --role "$3" --address "$4" $5 --authority "{{.Lab}}/ctl/authority.key" --out "{{.Lab}}/$1/$3.identity"
}
{{- range $node := .List .Vars.directors}}
make_member {{$node}} {{$node}} director {{$.Addr $node "lo"}} --leader
{{- end}}
{{- range $node := .List .Vars.igmpds}}
make_member {{$node}} {{$node}}-igmpd router {{$.Addr $node "lo"}}
{{- end}}
{{- range $node := .List .Vars.tdpds}}
manycast key create member {{$node}}-tdpd --out "{{$.Lab}}/{{$node}}/tdpd.member"
{{- end}}
{{- range $node := .List .Vars.servers}}
make_member {{$node}} {{$node}} server {{$.Addr $node "eth0"}} {{$.Vars.serverlead}}
{{- end}}
