// Numbers as people read them: the same wording as in the terminal and in the report.

export const NONE = "–";
const UNITS = [["GB", 1e9], ["MB", 1e6], ["kB", 1e3]];

export function size(count) {
  if (count === null || count === undefined) return NONE;
  for (const [unit, scale] of UNITS) {
    if (count >= scale * 0.99995) {
      const value = count / scale;
      return `${value.toFixed(value < 10 ? 2 : value < 1000 ? 1 : 0)} ${unit}`;
    }
  }
  return `${Math.round(count)} B`;
}

export function percent(share, digits = 1) {
  return share === null || share === undefined ? NONE : `${(100 * share).toFixed(digits)} %`;
}

export function times(ratio) {
  return ratio === null || !isFinite(ratio) ? NONE : `${ratio.toFixed(ratio < 10 ? 2 : 1)}x`;
}

export function seconds(value) {
  if (value === null || value === undefined || !isFinite(value)) return NONE;
  if (value < 0.9995) return `${Math.round(1000 * value)} ms`;
  if (value < 59.95) return `${value.toFixed(1)} s`;
  const whole = Math.round(value), hours = Math.floor(whole / 3600), minutes = Math.floor((whole % 3600) / 60);
  return hours ? `${hours} h ${minutes} min` : `${minutes} min ${whole % 60} s`;
}

export function count(value) {
  return value === null || value === undefined ? NONE : value.toLocaleString("en");
}

export function clock(time) {
  return new Date(time * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
}
