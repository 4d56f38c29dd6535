// e^x on Lanes, for the sources that define Lanes, IntLanes and madd() of them before they include
// this file.

/// e^x for x <= 0, within 2 units in the last place; 0 below -87, NaN for NaN.
Lanes exp_lanes(Lanes x) {
  x = x < -87.3F ? all_lanes<Lanes>(-87.3F) : x;
  // x = n ln 2 + r, |r| <= ln 2 / 2; adding 1.5 * 2^23 rounds to an integer.
  constexpr float kRound = 12582912.0F;
  const Lanes shifted = madd(x, all_lanes<Lanes>(1.44269504F), all_lanes<Lanes>(kRound));
  const Lanes n = shifted - kRound;
  Lanes r = madd(n, all_lanes<Lanes>(-0.693359375F), x);
  r = madd(n, all_lanes<Lanes>(2.12194440e-4F), r);
  // Taylor's series to the 7th power: its remainder is below 1e-8 there.
  Lanes p = all_lanes<Lanes>(1.0F / 5040.0F);
  for (const float c :
       {1.0F / 720.0F, 1.0F / 120.0F, 1.0F / 24.0F, 1.0F / 6.0F, 0.5F, 1.0F, 1.0F}) {
    p = madd(p, r, all_lanes<Lanes>(c));
  }
  const IntLanes power = (__builtin_convertvector(n, IntLanes) + 127) << 23;
  Lanes scale;
  std::memcpy(&scale, &power, sizeof(scale));
  return x <= -87.3F ? Lanes{} : p * scale;
}
