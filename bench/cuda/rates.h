// What the device can do, measured: the rates that floors are made of.
#pragma once
#include <functional>
#include <string>

namespace fnce::bench::gpu {

// Calls put(name, value, unit) for each.
void measure_rates(const std::function<void(const std::string&, double, const std::string&)>& put);

}  // namespace fnce::bench::gpu
