// The cases whose results are compared bit for bit between two libraries, each with digests of everything it writes.
#pragma once

#include <functional>
#include <string>

namespace bits {

// A case's words, and its digests; these throw std::runtime_error where the library refuses.
using Report = std::function<void(const std::string& words, const std::function<std::string()>& digests)>;

void loss_cases(const Report& report);   // fnce_loss, fnce_scores, the steps, what is drawn
void other_cases(const Report& report);  // fnce_queue_push, fnce_scale

}  // namespace bits
