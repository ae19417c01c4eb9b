// The one way a number is written: the rules of shown.py. A test compares the two.
const THIN = "\u202f";
const HUGE = 1e15;

function shown(value, kind) {
  let text;
  if (kind === "percent") text = fixed(value * 100, 1) + THIN + "%";
  else if (kind === "share") text = fixed(value * 100, 1);
  else if (kind === "fine") text = fixed(value * 100, 3) + THIN + "%";
  else if (kind === "fine share") text = fixed(value * 100, 3);
  else if (kind === "plain") text = fixed(value, 4);
  else if (kind === "count") text = fixed(value, 0).replace(/(?<!e.*)\B(?=(\d{3})+$)/g, ",");
  else if (kind === "seconds") text = fixed(value, Math.abs(value) < 10 ? 2 : 0) + THIN + "s";
  else text = significant(value);
  return text.replace(/^-/, "\u2212");
}

function fixed(value, digits) {
  if (Math.abs(value) >= HUGE) return significant(value);
  const text = value.toFixed(digits);
  return /^-[0.]*$/.test(text) ? text.slice(1) : text;
}

function significant(value) {
  if (value === 0) return "0";
  const [mantissa, exponent] = value.toExponential(3).split("e");
  const power = Number(exponent);
  return power >= -4 && power <= 3 ? value.toFixed(3 - power) : `${mantissa}e${power}`;
}
