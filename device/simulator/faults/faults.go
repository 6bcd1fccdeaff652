// Package faults describes which faults happen in a conversation between a simulated
// device and its host, and when.
//
// A Script lists faults. Each happens once, at a step of an operation or after a
// number of bytes. The package decides which faults are due, and cuts connections
// after a number of bytes. The agent carries out all other faults.
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
	StepUploading Step = "uploading" // before Status.plist says "uploading"; the same holds for moving, removing, finished
	StepUpload    Step = "upload"    // before each batch of files
	StepManifests Step = "manifests" // before the new manifests are uploaded
	StepMoving    Step = "moving"
	StepMove      Step = "move" // before each batch of moves
	StepRemoving  Step = "removing"
	StepRemove    Step = "remove" // before each batch of removals
	StepFinished  Step = "finished"
	StepVerify    Step = "verify"
	StepResponse  Step = "response"
)

// Further steps of a restore and of a password change.
const (
	StepCopy   Step = "copy"
	StepFiles  Step = "files" // before each batch of files
	StepKeybag Step = "keybag"
)

var steps = []Step{StepBegin, StepStatus, StepScan, StepManifest, StepListing, StepFinishing, StepSpace, StepFolders, StepUploading,
	StepUpload, StepManifests, StepMoving, StepMove, StepRemoving, StepRemove, StepFinished, StepVerify, StepResponse, StepCopy,
	StepFiles, StepKeybag}
