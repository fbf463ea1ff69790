// Latents of seeds, the same as NumPy's RandomState(seed).randn(count): the Mersenne Twister (Matsumoto and Nishimura 1998)
// and the polar method for normal numbers (Marsaglia and Bray 1964).

const N = 624;
const M = 397;

class MersenneTwister {
  constructor(seed) {
    this.state = new Uint32Array(N);
    this.state[0] = seed;
    for (let i = 1; i < N; i++) {
      const last = this.state[i - 1] ^ (this.state[i - 1] >>> 30);
      this.state[i] = Math.imul(1812433253, last) + i;
    }
    this.next = N;
  }

  // The next whole number of 32 bits.
  word() {
    if (this.next === N) {
      for (let i = 0; i < N; i++) {
        const y = (this.state[i] & 0x80000000) | (this.state[(i + 1) % N] & 0x7fffffff);
        this.state[i] = this.state[(i + M) % N] ^ (y >>> 1) ^ (y & 1 ? 0x9908b0df : 0);
      }
      this.next = 0;
    }
    let y = this.state[this.next++];
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    return (y ^ (y >>> 18)) >>> 0;
  }

  // Uniform in [0, 1), of 53 bits.
  uniform() {
    const high = this.word() >>> 5;
    return (high * 67108864 + (this.word() >>> 6)) / 9007199254740992;
  }
}

// `count` standard normal numbers of a seed from 0 to 2^32 - 1.
export function latent(seed, count) {
  const random = new MersenneTwister(seed >>> 0);
  const values = new Float32Array(count);
  for (let i = 0; i < count; i += 2) {
    let x, y, r;
    do {
      x = 2 * random.uniform() - 1;
      y = 2 * random.uniform() - 1;
      r = x * x + y * y;
    } while (r >= 1 || r === 0);
    const factor = Math.sqrt((-2 * Math.log(r)) / r);
    values[i] = factor * y;
    if (i + 1 < count) values[i + 1] = factor * x;
  }
  return values;
}
