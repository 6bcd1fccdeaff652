// Package faults describes what goes wrong in a conversation between a simulated
// device and its host, and says when.
//
// A Script has faults at a step of an operation or after a number of bytes. Each
// happens once. The package decides what is due and cuts connections; the agent
// does the rest.
package faults

// Step is a point that an operation reaches.
type Step string

// The steps of a backup, in order. Every operation has StepBegin and StepResponse.
const (
	StepBegin     Step = "begin"     // before everything else; the device may ask for its passcode
	StepStatus    Step = "status"    // before Status.plist is downloaded
	StepScan      Step = "scan"      // before the device lists its files
	StepManifest  Step = "manifest"  // before the old manifests are downloaded
	StepListing   Step = "listing"   // before the host's folders are listed
	StepFinishing Step = "finishing" // before an interrupted run is finished
	StepSpace     Step = "space"
	StepFolders   Step = "folders"
	StepUploading Step = "uploading" // before Status.plist says "uploading"; likewise moving, removing, finished
	StepUpload    Step = "upload"    // each batch of files
	StepManifests Step = "manifests" // before the new manifests are uploaded
	StepMoving    Step = "moving"
	StepMove      Step = "move" // each batch
	StepRemoving  Step = "removing"
	StepRemove    Step = "remove" // each batch
	StepFinished  Step = "finished"
	StepVerify    Step = "verify"
	StepResponse  Step = "response"
)

// Further steps of a restore and of a password change.
const (
	StepCopy   Step = "copy"
	StepFiles  Step = "files" // each batch
	StepKeybag Step = "keybag"
)

var steps = []Step{StepBegin, StepStatus, StepScan, StepManifest, StepListing, StepFinishing, StepSpace, StepFolders, StepUploading,
	StepUpload, StepManifests, StepMoving, StepMove, StepRemoving, StepRemove, StepFinished, StepVerify, StepResponse, StepCopy,
	StepFiles, StepKeybag}
