package train

import (
	"encoding/json"

	"ringtail/data"
	"ringtail/folder"
	"ringtail/model"
)

// onRows is what objectives have in common that train one model on a loader's rows:
// pretraining, fine-tuning, reward models.
type onRows struct {
	basis
	model *model.Model
	text  *folder.Text
	data  *data.Dataset

	loader  *data.Loader
	batch   data.Step
	learner *learner
	balance *balance // of a mixture of experts
	longest int
}

// rowsState is what a checkpoint keeps beside the weights.
type rowsState struct {
	Updates int        `json:"updates"` // optimizer steps that weren't skipped
	Loader  data.State `json:"loader"`
}

func (o *onRows) common() *basis { return &o.basis }

func (o *onRows) save(dir string) (any, error) {
	return rowsState{o.learner.updates, o.loader.State()}, o.model.Store.WriteChunks(dir)
}

func (o *onRows) restore(dir string, state json.RawMessage) error {
	var s rowsState
	if err := json.Unmarshal(state, &s); err != nil {
		return err
	}
	if err := o.readWeights(dir); err != nil {
		return err
	}
	o.learner.resume(s.Updates)
	return o.loader.Restore(s.Loader)
}

func (o *onRows) readWeights(dir string) error { return o.model.Store.ReadChunks(dir) }

func (o *onRows) badTensor() string {
	if bad := o.learner.badTensor(); bad != "" {
		return bad
	}
	return "the loss"
}

func (o *onRows) bytes() int { return o.model.Store.Bytes() + o.arena.Size() }

func (o *onRows) close() {
	o.learner.free()
	o.free()
	if o.model != nil {
		o.model.Free()
	}
}
