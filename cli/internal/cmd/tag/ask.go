package tag

import (
	"context"
	"fmt"

	"github.com/manycast/manycast/cli/internal/routers"
	tdpdv1 "github.com/manycast/manycast/proto/tdpd/v1"
)

const pagesMost = 200_000 // of one router

// way is how routers are asked.
type way = routers.Way

// open finds the way to the routers.
func (o *options) open(ctx context.Context) (way, error) {
	return routers.Open(ctx, o.factory, o.socket)
}

// statuses are those of the routers that the user means.
func (o *options) statuses(ctx context.Context, w way) ([]*tdpdv1.Answer, error) {
	return routers.Statuses(ctx, w, o.router)
}

// eachFEC asks a router for FECs, page by page.
func eachFEC(ctx context.Context, w way, router string, about *tdpdv1.FECsRequest, each func(*tdpdv1.FEC)) error {
	return eachPage(ctx, w, router, func(after string) *tdpdv1.Request {
		about.After = after
		return &tdpdv1.Request{About: &tdpdv1.Request_Fecs{Fecs: about}}
	}, func(answer *tdpdv1.Answer) string {
		for _, f := range answer.GetFecs().GetFecs() {
			each(f)
		}
		return answer.GetFecs().GetNext()
	})
}

// eachEntry asks a router for one of its tables.
func eachEntry(ctx context.Context, w way, router string, ftn bool, each func(*tdpdv1.Entry)) error {
	return eachPage(ctx, w, router, func(after string) *tdpdv1.Request {
		return &tdpdv1.Request{About: &tdpdv1.Request_Table{Table: &tdpdv1.TableRequest{Ftn: ftn, After: after}}}
	}, func(answer *tdpdv1.Answer) string {
		for _, e := range answer.GetTable().GetEntries() {
			each(e)
		}
		return answer.GetTable().GetNext()
	})
}

func eachPage(ctx context.Context, w way, router string, request func(after string) *tdpdv1.Request, take func(*tdpdv1.Answer) (next string)) error {
	after := ""
	for range pagesMost {
		answer, err := w.One(ctx, router, request(after))
		if err != nil {
			return err
		}
		next := take(answer)
		if next == "" {
			return nil
		}
		if next == after {
			return fmt.Errorf("router %s gives the same page again and again", router)
		}
		after = next
	}
	return fmt.Errorf("router %s finds no end: more than %d pages", router, pagesMost)
}
