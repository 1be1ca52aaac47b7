// Evaluates an exported model without Python.
//
//   predict package.pt2 source.txt queries.txt > answer.txt
//
// Every line of source.txt is a source point: its coordinates, its samples, its quadrature weight.
// Every line of queries.txt is a query point: its coordinates. The answer has a line for each.

#include <cstdint>
#include <exception>
#include <fstream>
#include <iomanip>
#include <iostream>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include <torch/csrc/inductor/aoti_package/model_package_loader.h>
#include <torch/torch.h>

// A table of numbers, one row a line, [rows, columns].
torch::Tensor read_table(const std::string& path) {
  std::ifstream file(path);
  if (!file) throw std::runtime_error(path + " cannot be read; check the path");
  std::vector<float> numbers;
  int64_t rows = 0;
  std::string line;
  while (std::getline(file, line)) {
    std::istringstream words(line);
    const auto before = numbers.size();
    for (float number; words >> number;) numbers.push_back(number);
    if (numbers.size() > before) ++rows;
  }
  if (rows == 0 || numbers.size() % rows != 0)
    throw std::runtime_error(path + " is no table; expected as many numbers in every line");
  return torch::tensor(numbers).view({rows, static_cast<int64_t>(numbers.size()) / rows});
}

int main(int argc, char** argv) {
  if (argc != 4) {
    std::cerr << "usage: predict package.pt2 source.txt queries.txt\n";
    return 2;
  }
  try {
    const torch::InferenceMode no_gradients;
    torch::inductor::AOTIModelPackageLoader model(argv[1]);
    const auto source = read_table(argv[2]);
    const auto query_pos = read_table(argv[3]);
    const auto dim = query_pos.size(1);
    const auto channels = source.size(1) - dim - 1;
    if (channels < 1)
      throw std::runtime_error("a source point needs coordinates, samples and a weight");
    const auto pos = source.narrow(1, 0, dim).contiguous();
    const auto u = source.narrow(1, dim, channels).contiguous();
    const auto weights = source.select(1, dim + channels).contiguous();
    const auto answer = model.run({pos, u, weights, query_pos})[0];
    std::cout << std::setprecision(9);
    for (int64_t i = 0; i < answer.size(0); ++i) {
      for (int64_t j = 0; j < answer.size(1); ++j)
        std::cout << (j ? " " : "") << answer[i][j].item<float>();
      std::cout << '\n';
    }
  } catch (const std::exception& error) {
    std::cerr << "error: " << error.what() << '\n';
    return 1;
  }
}
