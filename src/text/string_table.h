// From strings to ids: an open-addressed hash table over strings that somebody else keeps alive.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

namespace mantissa {

inline uint64_t mix_bits(uint64_t h) {  // the finalizer of MurmurHash3
  h = (h ^ (h >> 33)) * 0xff51afd7ed558ccdu;
  h = (h ^ (h >> 33)) * 0xc4ceb9fe1a85ec53u;
  return h ^ (h >> 33);
}
inline uint64_t hash_bytes(std::string_view s) {
  uint64_t h = s.size() * 0x9e3779b97f4a7c15u;
  const char* p = s.data();
  size_t n = s.size();
  for (uint64_t word; n >= sizeof word; n -= sizeof word, p += sizeof word) {
    std::memcpy(&word, p, sizeof word);
    h = (std::rotl(h, 27) ^ word) * 0x9ddfea08eb382d69u;
  }
  if (n > 0) {
    uint64_t word = 0;
    std::memcpy(&word, p, n);
    h = (std::rotl(h, 27) ^ word) * 0x9ddfea08eb382d69u;
  }
  return mix_bits(h);
}

class StringTable {
 public:
  explicit StringTable(size_t count = 0)
      : slots_(std::bit_ceil(count * 2 + 2), Slot{0, -1, {}}), mask_(slots_.size() - 1) {}

  // At most the count of the constructor; false where the string is there already.
  bool insert(std::string_view key, int32_t id) {
    Slot& slot = slots_[find_slot(key)];
    if (slot.id >= 0) return false;
    slot = {static_cast<uint32_t>(hash_bytes(key)), id, key};
    return true;
  }
  // -1 where there is none.
  int32_t find(std::string_view key) const { return slots_[find_slot(key)].id; }

 private:
  struct Slot {
    uint32_t hash;
    int32_t id;  // -1: empty
    std::string_view key;
  };
  size_t find_slot(std::string_view key) const {
    const uint64_t hash = hash_bytes(key);
    size_t i = (hash >> 32) & mask_;
    while (slots_[i].id >= 0 &&
           (slots_[i].hash != static_cast<uint32_t>(hash) || slots_[i].key != key)) {
      i = (i + 1) & mask_;
    }
    return i;
  }

  std::vector<Slot> slots_;
  size_t mask_;
};

}  // namespace mantissa
