// Feeds toy events to `projectevent` of the authors' rapidity-mass matrix (RMM) code and times it; see rmm_root.py.
//
//     rmm_root EVENTS MATRICES PASSES
//
// EVENTS: int64 number of events n and of objects m, offsets[n + 1], kind[m]; then float64 pt[m], eta[m], phi[m],
// mass[m], met[n], met_phi[n]. MATRICES: n x 51 x 51 float32, rows first. Standard output: one line per timed pass with
// the CPU seconds spent inside `projectevent` and those of filling its vectors as well.

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <vector>

#include "LParticle.h"

// No header of theirs declares it. The const vectors by value are theirs: their copies are part of what is timed.
float** projectevent(const float CMS, const int maxN, const int maxNumberTypes, const std::vector<LParticle> missing,
                     const std::vector<LParticle> jets, const std::vector<LParticle> bjets,
                     const std::vector<LParticle> muons, const std::vector<LParticle> electrons,
                     const std::vector<LParticle> photons);

namespace {

constexpr float ENERGY = 13000;  // sqrt(s), GeV
constexpr int SLOTS = 10;        // per type
constexpr int TYPES = 5;
constexpr int SIZE = TYPES * SLOTS + 1;
constexpr std::size_t BLOCK = 64;  // few enough to stay in cache, enough to make the clock calls cheap

template <typename T>
std::vector<T> read(std::FILE* file, std::size_t n) {
  std::vector<T> values(n);
  if (std::fread(values.data(), sizeof(T), n, file) != n) {
    std::fputs("rmm_root: short file\n", stderr);
    std::exit(1);
  }
  return values;
}

LParticle particle(double pt, double eta, double phi, double mass) {
  TLorentzVector momentum;
  momentum.SetPtEtaPhiM(pt, eta, phi, mass);
  LParticle result;
  result.SetP(momentum);
  return result;
}

struct Event {
  std::vector<LParticle> missing, objects[TYPES];

  float** matrix() const {
    return projectevent(ENERGY, SLOTS, TYPES, missing, objects[0], objects[1], objects[2], objects[3], objects[4]);
  }
};

void release(float** matrix) {
  for (int row = 0; row < SIZE; row++) delete[] matrix[row];
  delete[] matrix;
}

double seconds() {
  timespec now;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return double(now.tv_sec) + 1e-9 * double(now.tv_nsec);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  std::FILE* file = std::fopen(argv[1], "rb");
  if (!file) return 1;
  const auto sizes = read<std::int64_t>(file, 2);
  const std::size_t n = sizes[0], m = sizes[1];
  const auto offsets = read<std::int64_t>(file, n + 1), kind = read<std::int64_t>(file, m);
  const auto pt = read<double>(file, m), eta = read<double>(file, m), phi = read<double>(file, m);
  const auto mass = read<double>(file, m), met = read<double>(file, n), met_phi = read<double>(file, n);
  std::fclose(file);

  const auto fill = [&](std::size_t i) {
    Event event;
    // as in the authors' driver: the missing momentum is one particle without eta and mass, present also when it is 0
    event.missing.push_back(particle(met[i], 0, met_phi[i], 0));
    for (auto k = offsets[i]; k < offsets[i + 1]; k++)
      event.objects[kind[k]].push_back(particle(pt[k], eta[k], phi[k], mass[k]));
    return event;
  };

  file = std::fopen(argv[2], "wb");
  if (!file) return 1;
  for (std::size_t i = 0; i < n; i++) {  // also the warm-up
    float** matrix = fill(i).matrix();
    for (int row = 0; row < SIZE; row++) std::fwrite(matrix[row], sizeof(float), SIZE, file);
    release(matrix);
  }
  std::fclose(file);

  std::vector<Event> block;
  block.reserve(BLOCK);
  for (int pass = std::atoi(argv[3]); pass > 0; pass--) {
    double routine = 0, all = 0;
    for (std::size_t first = 0; first < n; first += BLOCK) {
      const double start = seconds();
      block.clear();
      for (std::size_t i = first; i < std::min(first + BLOCK, n); i++) block.push_back(fill(i));
      const double filled = seconds();
      for (const Event& event : block) release(event.matrix());
      const double end = seconds();
      routine += end - filled;
      all += end - start;
    }
    std::printf("%.9g %.9g\n", routine, all);
  }
}
