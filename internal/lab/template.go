package lab

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"text/template"
)

//go:embed topologies
var embedded embed.FS

// TemplateData is what the templates of a topology see.
type TemplateData struct {
	Lab   string            // the lab's directory
	Dir   string            // the node's directory
	Bin   string            // where the daemons are
	BPFFS string            // the lab's bpffs
	Node  string            // the node's name
	Vars  map[string]string // the topology's, with the node's over them

	topology  *Topology
	templates fs.FS // where files are rendered
}

// Mgmt is a node's address on the management network.
func (d TemplateData) Mgmt(node string) (netip.Addr, error) {
	p := d.topology.MgmtAddress(node)
	if !p.IsValid() {
		return netip.Addr{}, fmt.Errorf("node %q is not on the management network", node)
	}
	return p.Addr(), nil
}

// Addr is the first address of a node's interface, without its prefix length.
func (d TemplateData) Addr(node, ifname string) (netip.Addr, error) {
	p, err := d.topology.Address(node, ifname)
	return p.Addr(), err
}

// Addrs are all addresses of a node's interface, without their prefix lengths.
func (d TemplateData) Addrs(node, ifname string) (all []netip.Addr, err error) {
	if _, err := d.topology.Address(node, ifname); err != nil {
		return nil, err
	}
	for _, p := range d.topology.Node(node).Addresses[ifname] {
		all = append(all, p.Addr())
	}
	return all, nil
}

// Include renders another template of the topology, in the midst of a file.
func (d TemplateData) Include(name string) (string, error) {
	text, err := fs.ReadFile(d.templates, name)
	if err != nil {
		return "", err
	}
	return render(name, string(text), d)
}

// List is the words of a text, to range over.
func (d TemplateData) List(words string) []string { return strings.Fields(words) }

// Topologies returns the names of the topologies that are built in.
func Topologies() []string {
	files, _ := fs.Glob(embedded, "topologies/*.yaml")
	var names []string
	for _, f := range files {
		names = append(names, strings.TrimSuffix(path.Base(f), ".yaml"))
	}
	return names
}

// BuiltIn returns a topology that is built in.
func BuiltIn(name string) (Source, error) {
	text, err := embedded.ReadFile("topologies/" + name + ".yaml")
	if err != nil {
		return Source{}, fmt.Errorf("no topology %q: there are %s", name, strings.Join(Topologies(), ", "))
	}
	own, err := fs.Sub(embedded, "topologies/"+name)
	if err != nil {
		return Source{}, err
	}
	common, err := fs.Sub(embedded, "topologies/common")
	return Source{text, either{own, common}}, err
}

// either has the files of the first, and those that it has not of the second.
type either struct{ first, second fs.FS }

// Open implements fs.FS.
func (e either) Open(name string) (fs.File, error) {
	f, err := e.first.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return e.second.Open(name)
	}
	return f, err
}

// FromFile returns the topology of a file NAME.yaml; its templates are in the directory NAME beside it.
func FromFile(file string) (Source, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return Source{}, fmt.Errorf("topology: %w", err)
	}
	return Source{text, os.DirFS(strings.TrimSuffix(file, filepath.Ext(file)))}, nil
}

// override sets vars that the topology has.
func (t *Topology) override(set map[string]string) error {
	for name, value := range set {
		if _, ok := t.Vars[name]; !ok {
			return fmt.Errorf("topology %s has no var %q: there are %s", t.Name, name, strings.Join(slices.Sorted(maps.Keys(t.Vars)), ", "))
		}
		t.Vars[name] = value
	}
	return nil
}

func (l *Lab) data(node string) TemplateData {
	vars := maps.Clone(l.topology.Vars)
	if vars == nil {
		vars = map[string]string{}
	}
	if n := l.topology.Node(node); n != nil {
		maps.Copy(vars, n.Vars)
	}
	return TemplateData{
		Lab: l.Dir(""), Dir: l.Dir(node), Bin: l.Bin(), BPFFS: l.BPFFS(), Node: node, Vars: vars, topology: l.topology,
	}
}

func render(name, text string, data TemplateData) (string, error) {
	tmpl, err := template.New(name).Option("missingkey=error").Parse(text)
	if err != nil {
		return "", fmt.Errorf("template: %w", err)
	}
	var out strings.Builder
	if err := tmpl.Execute(&out, data); err != nil {
		return "", fmt.Errorf("template: %w", err)
	}
	return out.String(), nil
}

// expand renders a command line for a node.
func (l *Lab) expand(node string, argv []string) ([]string, error) {
	out := make([]string, len(argv))
	for i, arg := range argv {
		var err error
		if out[i], err = render("command", arg, l.data(node)); err != nil {
			return nil, fmt.Errorf("%s: %s: %w", node, arg, err)
		}
	}
	return out, nil
}

// writeFiles renders the configuration files of all processes into the nodes' directories.
func (l *Lab) writeFiles(templates fs.FS) error {
	for _, n := range l.topology.Nodes {
		if err := os.MkdirAll(l.Dir(n.Name), 0o700); err != nil {
			return err
		}
		if err := l.give(l.Dir(n.Name)); err != nil {
			return err
		}
		for _, p := range n.Processes {
			for _, name := range slices.Sorted(maps.Keys(p.Files)) {
				if err := l.writeFile(templates, n.Name, p.Vars, name, p.Files[name]); err != nil {
					return fmt.Errorf("%s/%s: file %s: %w", n.Name, p.Name, name, err)
				}
			}
		}
	}
	return nil
}

func (l *Lab) writeFile(templates fs.FS, node string, vars map[string]string, name, templateName string) error {
	text, err := fs.ReadFile(templates, templateName)
	if err != nil {
		return err
	}
	data := l.data(node)
	data.templates = templates
	maps.Copy(data.Vars, vars)
	out, err := render(templateName, string(text), data)
	if err != nil {
		return err
	}
	return l.WriteFile(node, name, []byte(out))
}

// WriteFile makes a file of a node's processes anew, whole and theirs at every moment.
func (l *Lab) WriteFile(node, name string, text []byte) error {
	path := filepath.Join(l.Dir(node), name)
	if err := os.WriteFile(path+".new", text, 0o600); err != nil {
		return err
	}
	if err := l.give(path + ".new"); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
