package gobgp

import (
	"context"
	"errors"
	"slices"

	api "github.com/osrg/gobgp/v3/api"

	"github.com/manycast/manycast/tdpd/internal/bgp"
)

// table is the speaker's name of the one table that policies are for.
const table = "global"

// applyPolicies has the speaker use what d wants, in front of policies of others. Where something changed, neighbors' paths are looked at again.
func (c *Client) applyPolicies(ctx context.Context, d bgp.Desired) error {
	if c.has.paths == nil {
		return nil // the speaker was never started
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	for _, one := range []struct {
		compiled
		direction api.PolicyDirection
		again     api.ResetPeerRequest_SoftResetDirection
	}{
		{compileImport(d), api.PolicyDirection_IMPORT, api.ResetPeerRequest_IN},
		{compileExport(d), api.PolicyDirection_EXPORT, api.ResetPeerRequest_OUT},
	} {
		changed, err := c.applyPolicy(ctx, one.compiled, one.direction)
		if err != nil {
			return err
		}
		if !changed {
			continue
		}
		for a := range c.has.neighbors {
			if _, err := c.api.ResetPeer(ctx, &api.ResetPeerRequest{Address: a.String(), Soft: true, Direction: one.again}); err != nil {
				return c.failed("look at paths again", err)
			}
		}
	}
	return c.removePolicies(ctx)
}

// applyPolicy makes one the first that is used in its direction.
func (c *Client) applyPolicy(ctx context.Context, p compiled, direction api.PolicyDirection) (changed bool, err error) {
	now, err := c.assigned(ctx, direction)
	if err != nil {
		return false, err
	}
	wanted := &api.PolicyAssignment{Name: table, Direction: direction} // the default stays as it is
	if p.policy != nil {
		wanted.Policies = append(wanted.Policies, &api.Policy{Name: p.policy.Name})
	}
	for _, name := range now {
		if !isOurs(name) {
			wanted.Policies = append(wanted.Policies, &api.Policy{Name: name})
		}
	}
	if slices.EqualFunc(now, wanted.Policies, func(name string, p *api.Policy) bool { return name == p.GetName() }) {
		return false, nil
	}
	if p.policy != nil {
		if err := c.addPolicy(ctx, p); err != nil {
			return false, err
		}
	}
	_, err = c.api.SetPolicyAssignment(ctx, &api.SetPolicyAssignmentRequest{Assignment: wanted})
	return true, c.failed("use a policy", err)
}

// assigned are the names of the policies that are used in a direction, in order.
func (c *Client) assigned(ctx context.Context, direction api.PolicyDirection) (names []string, err error) {
	stream, err := c.api.ListPolicyAssignment(ctx, &api.ListPolicyAssignmentRequest{Name: table, Direction: direction})
	if err == nil {
		err = each(stream, func(r *api.ListPolicyAssignmentResponse) bool {
			for _, p := range r.GetAssignment().GetPolicies() {
				names = append(names, p.GetName())
			}
			return true
		})
	}
	return names, c.failed("which policies are used", err)
}

// addPolicy adds one that nobody uses yet, after what an attempt before may have left of it.
func (c *Client) addPolicy(ctx context.Context, p compiled) error {
	// None of these need be there.
	_, _ = c.api.DeletePolicy(ctx, &api.DeletePolicyRequest{Policy: &api.Policy{Name: p.policy.Name}, All: true})
	for _, s := range p.policy.Statements {
		_, _ = c.api.DeleteStatement(ctx, &api.DeleteStatementRequest{Statement: &api.Statement{Name: s.Name}, All: true})
	}
	for _, s := range p.sets {
		_, _ = c.api.DeleteDefinedSet(ctx, &api.DeleteDefinedSetRequest{DefinedSet: &api.DefinedSet{DefinedType: s.DefinedType, Name: s.Name}, All: true})
		if _, err := c.api.AddDefinedSet(ctx, &api.AddDefinedSetRequest{DefinedSet: s}); err != nil {
			return c.failed("add a set of a policy", err)
		}
	}
	_, err := c.api.AddPolicy(ctx, &api.AddPolicyRequest{Policy: p.policy})
	return c.failed("add a policy", err)
}

// removePolicies takes away those of ours that are not used, and their sets.
func (c *Client) removePolicies(ctx context.Context) error {
	used := map[string]bool{}
	for _, direction := range []api.PolicyDirection{api.PolicyDirection_IMPORT, api.PolicyDirection_EXPORT} {
		names, err := c.assigned(ctx, direction)
		if err != nil {
			return err
		}
		for _, n := range names {
			used[n] = true
		}
	}
	var unused []string
	stream, err := c.api.ListPolicy(ctx, &api.ListPolicyRequest{})
	if err == nil {
		err = each(stream, func(r *api.ListPolicyResponse) bool {
			if n := r.GetPolicy().GetName(); isOurs(n) && !used[n] {
				unused = append(unused, n)
			}
			return true
		})
	}
	if err != nil {
		return c.failed("which policies there are", err)
	}
	var errs []error
	for _, n := range unused {
		_, err := c.api.DeletePolicy(ctx, &api.DeletePolicyRequest{Policy: &api.Policy{Name: n}, All: true})
		errs = append(errs, c.failed("remove a policy that nobody uses", err))
	}
	if len(unused) > 0 {
		errs = append(errs, c.removeSets(ctx, used))
	}
	return errors.Join(errs...)
}

// removeSets takes away those of policies of ours that are not used.
func (c *Client) removeSets(ctx context.Context, used map[string]bool) error {
	var errs []error
	for _, kind := range []api.DefinedType{api.DefinedType_PREFIX, api.DefinedType_NEIGHBOR, api.DefinedType_COMMUNITY, api.DefinedType_LARGE_COMMUNITY} {
		var unused []*api.DefinedSet
		stream, err := c.api.ListDefinedSet(ctx, &api.ListDefinedSetRequest{DefinedType: kind})
		if err == nil {
			err = each(stream, func(r *api.ListDefinedSetResponse) bool {
				s := r.GetDefinedSet()
				if isOurs(s.GetName()) && !used[policyOf(s.GetName())] {
					unused = append(unused, s)
				}
				return true
			})
		}
		if err != nil {
			return c.failed("which sets there are", err)
		}
		for _, s := range unused {
			_, err := c.api.DeleteDefinedSet(ctx, &api.DeleteDefinedSetRequest{DefinedSet: &api.DefinedSet{DefinedType: kind, Name: s.GetName()}, All: true})
			errs = append(errs, c.failed("remove a set that nobody uses", err))
		}
	}
	return errors.Join(errs...)
}
