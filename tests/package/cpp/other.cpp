// The second translation unit of main.cpp: the header's functions in both must be one.
#include <flashnce/flashnce.hpp>

float loss_of_other_unit(const flashnce::Plan& plan, const flashnce::Args& args);
flashnce::Plan plan_of_other_unit(std::int64_t k);

float loss_of_other_unit(const flashnce::Plan& plan, const flashnce::Args& args) {
  float loss = 0;
  flashnce::Args copy = args;
  copy.loss = &loss;
  flashnce::Workspace workspace(plan);
  flashnce::loss(plan, copy, workspace);
  return loss;
}

flashnce::Plan plan_of_other_unit(std::int64_t k) {
  return flashnce::Plan(flashnce::Problem(flashnce::Preset::moco, 2, k, 2));
}
