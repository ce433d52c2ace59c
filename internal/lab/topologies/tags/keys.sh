# What members of the control group need: a key pair each, and an identity by the operator's authority.
manycast key create authority --out "{{.Lab}}/ctl/authority.key"
make_member() { # node, name, role, address
	manycast key create member "$2" --out "{{.Lab}}/$1/$3.member"
	manycast key create identity "$2" --role "$3" --address "$4" $5 --authority "{{.Lab}}/ctl/authority.key" --out "{{.Lab}}/$1/$3.identity"
}
make_member d1 d1 director {{.Addr "d1" "lo"}} --leader
make_member d2 d2 director {{.Addr "d2" "lo"}} --leader
{{- range $node := .List "u1 u2 c1 c2 d1 d2"}}
make_member {{$node}} {{$node}}-igmpd router {{$.Addr $node "lo"}}
{{- end}}
{{- range $node := .List "u1 u2 c1 c2 d1 d2"}}
manycast key create member {{$node}}-tdpd --out "{{$.Lab}}/{{$node}}/tdpd.member"
{{- end}}
{{- range $node := .List "s1 s2 s3 s4"}}
make_member {{$node}} {{$node}} server {{$.Addr $node "eth0"}}
{{- end}}
