// Scores recorded rows with a bundle's TorchScript file, as an application in C++ would.
//
// Usage: golden MODEL.pt ROWS.pt
//
// ROWS.pt is a list of tensors written by torch.save: the expected scores, then each input in the order of the
// module's arguments. Prints the largest absolute difference and the number of rows whose argmax differs.

#include <torch/script.h>

#include <fstream>
#include <iostream>
#include <iterator>
#include <vector>

int main(int argc, char** argv) {
  TORCH_CHECK(argc == 3, "usage: golden MODEL.pt ROWS.pt");
  const c10::InferenceMode inference;

  std::ifstream file(argv[2], std::ios::binary);
  const std::vector<char> bytes(std::istreambuf_iterator<char>(file), {});
  const c10::IValue rows = torch::jit::pickle_load(bytes);
  const auto values = rows.toListRef();
  const at::Tensor& expected = values.front().toTensor();

  auto module = torch::jit::load(argv[1], at::kCPU);
  const at::Tensor got = module.forward(values.slice(1).vec()).toTensor();

  TORCH_CHECK(got.sizes() == expected.sizes(), "got scores of shape ", got.sizes(), ", not ", expected.sizes());
  std::cout << (got - expected).abs().max().item<double>() << " "
            << (got.argmax(-1) != expected.argmax(-1)).sum().item<int64_t>() << "\n";
}
