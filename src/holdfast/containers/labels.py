"""Labels by which Holdfast finds its own containers, whoever made them."""

APPLICATION_LABEL = "holdfast.application"
INSTANCE_LABEL = "holdfast.instance"
RELEASE_LABEL = "holdfast.release"
IMAGE_LABEL = "holdfast.image"
DEFINITION_LABEL = "holdfast.definition"
OPERATION_LABEL = "holdfast.operation"
