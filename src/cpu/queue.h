// Queue push, equation (10), and the scaling of saved gradients, on the CPU.
#pragma once
#include <flashnce/flashnce.h>

#include "core/backend.h"

namespace fnce::cpu {

void queue_push(const fnce_push& push);
void scale(const ScaleCall& call);

}  // namespace fnce::cpu
